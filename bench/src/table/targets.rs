//! The figures that have a target, met or not.

use std::collections::BTreeMap;

use super::format::line;
use crate::samples::{Samples, Scenario, Spread, metric, paired};
use crate::tools::Tool;

/// The most that a figure may be, and how that is written.
#[derive(Clone, Copy)]
struct AtMost(f64, &'static str);

impl AtMost {
    fn remark(self, median: f64) -> String {
        let Self(target, written) = self;
        let verdict = if median <= target { "met" } else { "NOT met" };
        format!("<= {written} {verdict}")
    }
}

/// What sockleak costs by what another tool costs in the same round.
struct Ratio {
    label: &'static str,
    scenario: Scenario,
    other: Tool,
    metric: &'static str,
    target: AtMost,
}

const RATIOS: [Ratio; 2] = [
    Ratio {
        label: "uninvolved change / bare program",
        scenario: Scenario::Uninvolved,
        other: Tool::Bare,
        metric: metric::UNINVOLVED_NS,
        target: AtMost(1.6, "1.6"),
    },
    Ratio {
        label: "inventoried change / tcpstates",
        scenario: Scenario::Crash,
        other: Tool::Tcpstates,
        metric: metric::DYING_NS,
        target: AtMost(0.2, "1/5"),
    },
];

pub fn render(samples: &Samples) -> String {
    let mut text = String::new();
    let mut add = |label: &str, values: Vec<f64>, target: AtMost| {
        if let Some(spread) = Spread::of(values) {
            text += &line(label, spread, &target.remark(spread.median));
        }
    };
    for row in &RATIOS {
        let of = |tool| samples.of(row.scenario, tool, None, row.metric);
        let ratios = paired(&of(Tool::Sockleak), &of(row.other), |own, other| own / other);
        add(row.label, ratios, row.target);
    }
    for (label, tool) in [
        ("JSON report - settling / ss -tano", Tool::Sockleak),
        ("text report - settling / ss -tano", Tool::SockleakText),
    ] {
        let ratios = samples.of(Scenario::Answer, tool, None, metric::ANSWER_PER_SS);
        add(label, ratios.into_values().collect(), AtMost(2.0, "2"));
    }
    for sockets in largest(samples) {
        let label = format!("bytes a socket, at {}", super::format::number(sockets as f64));
        add(&label, bytes_per_socket(samples, sockets), AtMost(400.0, "400"));
    }
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
        assert_eq!(AtMost(1.6, "1.6").remark(1.6), "<= 1.6 met");
        assert_eq!(AtMost(1.6, "1.6").remark(1.7), "<= 1.6 NOT met");
    }
}
