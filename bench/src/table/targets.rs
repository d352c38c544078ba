//! The figures that have a target, met or not.

use std::collections::BTreeMap;

use super::format::line;
use crate::roles::Baseline;
use crate::samples::{Samples, Scenario, Spread, metric, paired};
use crate::tools::Tool;

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64, &'static str),
    AtLeast(f64, &'static str),
}

impl Target {
    fn remark(self, median: f64) -> String {
        let (sign, written, met) = match self {
            Self::AtMost(target, written) => ("<=", written, median <= target),
            Self::AtLeast(target, written) => (">=", written, median >= target),
        };
        let verdict = if met { "met" } else { "NOT met" };
        format!("{sign} {written} {verdict}")
    }
}

/// What a tool costs by what another one costs in the same round.
struct Ratio {
    label: &'static str,
    scenario: Scenario,
    other: Tool,
    metric: &'static str,
    target: Target,
}

const BARE: Tool = Tool::Baseline(Baseline::Bare);
const READING: Tool = Tool::Baseline(Baseline::Reading);
const NAIVE: Tool = Tool::Baseline(Baseline::Naive);
const WHOLE: Target = Target::AtMost(1.0, "1");

const RATIOS: [Ratio; 9] = [
    ratio(
        "uninvolved change / bare program",
        Scenario::Uninvolved,
        BARE,
        metric::UNINVOLVED_NS,
        Target::AtMost(1.6, "1.6"),
    ),
    ratio(
        "uninvolved change / tcpstates",
        Scenario::Uninvolved,
        Tool::Tcpstates,
        metric::UNINVOLVED_NS,
        Target::AtMost(1.0 / 12.0, "1/12"),
    ),
    ratio(
        "uninvolved change / bpftrace",
        Scenario::Uninvolved,
        Tool::Bpftrace,
        metric::UNINVOLVED_NS,
        Target::AtMost(1.0 / 8.0, "1/8"),
    ),
    ratio(
        "inventoried change / tcpstates",
        Scenario::Crash,
        Tool::Tcpstates,
        metric::DYING_NS,
        Target::AtMost(0.2, "1/5"),
    ),
    ratio(
        "inventoried change / bpftrace",
        Scenario::Crash,
        Tool::Bpftrace,
        metric::DYING_NS,
        WHOLE,
    ),
    ratio(
        "walk / walk that stores nothing",
        Scenario::Walk,
        READING,
        metric::WALK_NS,
        Target::AtMost(1.6, "1.6"),
    ),
    ratio("walk / naive walk", Scenario::Walk, NAIVE, metric::WALK_NS, WHOLE),
    ratio(
        "start to attached / tcpstates",
        Scenario::Start,
        Tool::Tcpstates,
        metric::ATTACHED_MS,
        WHOLE,
    ),
    ratio(
        "start to attached / bpftrace",
        Scenario::Start,
        Tool::Bpftrace,
        metric::ATTACHED_MS,
        Target::AtMost(1.0 / 3.0, "1/3"),
    ),
];

const fn ratio(
    label: &'static str,
    scenario: Scenario,
    other: Tool,
    metric: &'static str,
    target: Target,
) -> Ratio {
    Ratio {
        label,
        scenario,
        other,
        metric,
        target,
    }
}

pub fn render(samples: &Samples) -> String {
    let mut text = String::new();
    let mut add = |label: &str, values: Vec<f64>, target: Target| {
        if let Some(spread) = Spread::of(values) {
            text += &line(label, spread, &target.remark(spread.median));
        }
    };
    for row in &RATIOS {
        let of = |tool| samples.of(row.scenario, tool, None, row.metric);
        let ratios = paired(&of(Tool::Sockleak), &of(row.other), |own, other| own / other);
        add(row.label, ratios, row.target);
    }
    let own = |scenario, tool, metric| -> Vec<f64> {
        samples.of(scenario, tool, None, metric).into_values().collect()
    };
    let of_ss = Target::AtMost(2.0, "2");
    add(
        "JSON report - settling / ss -tano",
        own(Scenario::Answer, Tool::Sockleak, metric::ANSWER_PER_SS),
        of_ss,
    );
    add(
        "text report - settling / ss -tano",
        own(Scenario::Answer, Tool::SockleakText, metric::ANSWER_PER_SS),
        of_ss,
    );
    let kept = Target::AtLeast(0.98, "0.98");
    add(
        "rate that an unrelated process keeps",
        own(Scenario::Rate, Tool::Sockleak, metric::KEPT),
        kept,
    );
    add(
        "  the same by its CPU time",
        own(Scenario::Rate, Tool::Sockleak, metric::KEPT_CPU),
        kept,
    );
    let rest = own(Scenario::Crash, Tool::Sockleak, metric::START_PEAK_KIB);
    add(
        "peak memory until attached, MiB",
        rest.iter().map(|kib| kib / 1024.0).collect(),
        Target::AtMost(32.0, "32"),
    );
    for sockets in largest(samples) {
        let label = format!("bytes a socket, at {}", super::format::number(sockets as f64));
        add(
            &label,
            bytes_per_socket(samples, sockets),
            Target::AtMost(400.0, "400"),
        );
    }
    add(
        "bytes of a map element",
        own(Scenario::Crash, Tool::Sockleak, metric::ELEMENT_BYTES),
        Target::AtMost(256.0, "256"),
    );
    text
}

/// Sockets of the largest crash of one process, and of the largest of all.
fn largest(samples: &Samples) -> Vec<usize> {
    let mut sizes: Vec<usize> = sizes(samples);
    sizes.retain(|sockets| *sockets > 10_001);
    sizes
}

/// Every size of the curve, in ascending order.
pub fn sizes(samples: &Samples) -> Vec<usize> {
    let curve = samples
        .all()
        .iter()
        .filter(|sample| sample.scenario == Scenario::Curve);
    let mut sizes: Vec<usize> = curve.map(|sample| sample.sockets).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// What resident memory peaks higher by than with a crash without sockets, for each socket: until the attach or after
/// it, whichever is more.
pub fn bytes_per_socket(samples: &Samples, sockets: usize) -> Vec<f64> {
    let grown = |metric| -> BTreeMap<u32, f64> {
        let peak = |sockets| samples.of(Scenario::Curve, Tool::Sockleak, Some(sockets), metric);
        let without = peak(0);
        let with = peak(sockets).into_iter();
        with.filter_map(|(round, with)| Some((round, with - without.get(&round)?)))
            .collect()
    };
    let (before, after) = (grown(metric::START_PEAK_KIB), grown(metric::PEAK_KIB));
    paired(&before, &after, |before, after| {
        before.max(after) * 1024.0 / sockets as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_or_not() {
        assert_eq!(Target::AtMost(1.6, "1.6").remark(1.6), "<= 1.6 met");
        assert_eq!(Target::AtMost(1.6, "1.6").remark(1.7), "<= 1.6 NOT met");
        assert_eq!(Target::AtLeast(0.98, "0.98").remark(0.97), ">= 0.98 NOT met");
    }
}
