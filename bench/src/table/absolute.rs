//! The figures themselves, of each tool.

use super::format::line;
use crate::samples::{Samples, Scenario, Spread, metric};
use crate::tools::Tool;

/// Tools in the order of a table.
const TOOLS: [Tool; 5] = [
    Tool::Sockleak,
    Tool::SockleakText,
    Tool::Bare,
    Tool::Tcpstates,
    Tool::Bpftrace,
];

/// A value that is shown for every tool that has it.
type Figure = (&'static str, &'static str);

const SECTIONS: [(Scenario, &str, &[Figure]); 4] = [
    (
        Scenario::Uninvolved,
        "An unrelated process connects, accepts and closes",
        &[("BPF ns a change", metric::UNINVOLVED_NS)],
    ),
    (
        Scenario::Crash,
        "A process opens its sockets while it is traced, and dies by SIGSEGV",
        &[
            ("BPF ns, opening", metric::OPENING_NS),
            ("BPF ns, closing", metric::DYING_NS),
            ("changes seen", metric::CHANGES),
            ("part not printed", metric::LOST_PART),
            ("told as lost", metric::TOLD_LOST),
            ("skipped by kernel", metric::MISSES),
            ("sockets reported", metric::REPORTED),
            ("of these unknown", metric::UNKNOWN),
            ("TIME_WAITs seen", metric::TIME_WAITS),
            ("CPU us a socket", metric::CPU_US),
            ("KiB, peak at start", metric::START_PEAK_KIB),
            ("KiB, at rest", metric::REST_KIB),
            ("KiB, peak at death", metric::PEAK_KIB),
            ("KiB, all maps", metric::MAPS_KIB),
        ],
    ),
    (
        Scenario::Walk,
        "The walk at exit, over sockets that were opened before",
        &[
            ("ns a socket", metric::WALK_NS),
            ("ns, one socket", metric::SMALL_WALK_NS),
            ("ns, one at the end", metric::SPARSE_WALK_NS),
            ("ns an empty slot", metric::EMPTY_SLOT_NS),
        ],
    ),
    (
        Scenario::Answer,
        "From the last close to the end of the report (50 ms of it settling)",
        &[
            ("answer, ms", metric::ANSWER_MS),
            ("ss before, ms", metric::SS_MS),
            ("ss after, ms", metric::SS_AFTER_MS),
        ],
    ),
];

pub fn render(samples: &Samples) -> String {
    let sections = SECTIONS.iter().map(|(scenario, title, figures)| {
        let mut lines = String::new();
        for (label, metric) in *figures {
            for tool in TOOLS {
                let values = samples.of(*scenario, tool, None, metric);
                if let Some(spread) = Spread::of(values.into_values()) {
                    lines += &line(&format!("{label:<20}{tool}"), spread, "");
                }
            }
        }
        if lines.is_empty() {
            return lines;
        }
        format!("{title}\n{lines}")
    });
    let sections: Vec<String> = sections.filter(|section| !section.is_empty()).collect();
    sections.join("\n")
}
