//! What was measured, and what it comes to.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;

use crate::tools::Tool;

/// What is made while the tools look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// An unrelated process connects, accepts and closes.
    Uninvolved,
    /// A process opens thousands of sockets while it is traced, and dies.
    Crash,
    /// The walk over the table of a process that opened its sockets before.
    Walk,
    /// From the last close to the text report.
    Answer,
    /// The crash with more and more sockets.
    Curve,
}

impl Scenario {
    pub const ALL: [Self; 5] = [
        Self::Uninvolved,
        Self::Crash,
        Self::Walk,
        Self::Answer,
        Self::Curve,
    ];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uninvolved => "uninvolved",
            Self::Crash => "crash",
            Self::Walk => "walk",
            Self::Answer => "answer",
            Self::Curve => "curve",
        })
    }
}

/// Names of the measured values, which end in their unit.
pub mod metric {
    /// BPF time of a change of state of a socket that nobody follows.
    pub const UNINVOLVED_NS: &str = "uninvolved_change_ns";
    /// BPF time of a change of state while sockets are opened.
    pub const OPENING_NS: &str = "opening_change_ns";
    /// BPF time of a change of state of a socket of a dying process.
    pub const DYING_NS: &str = "dying_change_ns";
    /// How often the state program ran, from the opening to the last close.
    pub const CHANGES: &str = "changes";
    /// Of the expected changes, the part that the tool did not print.
    pub const LOST_PART: &str = "lost_part";
    /// Changes that the tool itself says it lost.
    pub const TOLD_LOST: &str = "told_lost";
    /// How often the kernel skipped the state program.
    pub const MISSES: &str = "recursion_misses";
    /// Sockets in the reports.
    pub const REPORTED: &str = "reported_sockets";
    /// Of them, those of which the outcome is not known.
    pub const UNKNOWN: &str = "unknown_sockets";
    /// TIME_WAITs that the tool saw.
    pub const TIME_WAITS: &str = "time_waits";
    /// BPF time at exit, for each socket.
    pub const WALK_NS: &str = "walk_ns_per_socket";
    /// BPF time at exit of a process with one socket and a small table.
    pub const SMALL_WALK_NS: &str = "small_walk_ns";
    /// BPF time at exit of a process with one socket at the end of a large table.
    pub const SPARSE_WALK_NS: &str = "sparse_walk_ns";
    /// What each empty slot before it adds.
    pub const EMPTY_SLOT_NS: &str = "empty_slot_ns";
    /// From the last close to the last byte of the last report.
    pub const ANSWER_MS: &str = "answer_ms";
    /// The same without the time for which the kernel is given to settle, by the time of `ss -tano`.
    pub const ANSWER_PER_SS: &str = "answer_per_ss";
    /// `ss -tano` just before the crash.
    pub const SS_MS: &str = "ss_ms";
    /// `ss -tano` after the report, when there are TIME_WAITs only.
    pub const SS_AFTER_MS: &str = "ss_after_ms";
    /// CPU time of the tool from the crash to the last report, for each socket.
    pub const CPU_US: &str = "cpu_us_per_socket";
    /// Peak of resident memory until the tool was attached.
    pub const START_PEAK_KIB: &str = "start_peak_kib";
    /// Resident memory when the tool was attached.
    pub const REST_KIB: &str = "rest_kib";
    /// Peak of resident memory from then to after the reports.
    pub const PEAK_KIB: &str = "peak_kib";
    /// What all maps take in the kernel after the crash.
    pub const MAPS_KIB: &str = "maps_kib";
}

/// One run of one tool.
#[derive(Clone, Debug)]
pub struct Sample {
    pub scenario: Scenario,
    pub tool: Tool,
    /// Sockets of the processes that died, in all.
    pub sockets: usize,
    /// What is repeated within a round counts each repeat as one.
    pub round: u32,
    pub values: BTreeMap<&'static str, f64>,
}

/// Everything that was measured.
#[derive(Default)]
pub struct Samples {
    samples: Vec<Sample>,
    failures: Vec<String>,
}

impl Samples {
    pub fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Notes what did not come out as it must, which is never a time.
    pub fn fail(&mut self, sentence: String) {
        self.failures.push(sentence);
    }

    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    pub fn all(&self) -> &[Sample] {
        &self.samples
    }

    /// A value of each round, by round. With several samples of a round, such as those of the curve, `sockets` selects.
    pub fn of(
        &self,
        scenario: Scenario,
        tool: Tool,
        sockets: Option<usize>,
        metric: &str,
    ) -> BTreeMap<u32, f64> {
        let samples = self.samples.iter().filter(|sample| {
            let meant = sample.scenario == scenario && sample.tool == tool;
            meant && sockets.is_none_or(|sockets| sample.sockets == sockets)
        });
        samples
            .filter_map(|sample| Some((sample.round, *sample.values.get(metric)?)))
            .collect()
    }
}

/// Combines what two things measured in the same round.
pub fn paired(a: &BTreeMap<u32, f64>, b: &BTreeMap<u32, f64>, combine: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let pairs = a.iter().filter_map(|(round, a)| Some((*a, *b.get(round)?)));
    pairs.map(|(a, b)| combine(a, b)).collect()
}

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let of = |median, min, max| Some(Spread { median, min, max });
        assert_eq!(spread(&[3.0, 1.0, 2.0]), of(2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), of(2.5, 1.0, 4.0));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn only_what_was_measured_in_the_same_round_is_compared() {
        let mut samples = Samples::default();
        for (tool, round, value) in [
            (Tool::Sockleak, 0, 6.0),
            (Tool::Sockleak, 1, 8.0),
            (Tool::Tcpstates, 1, 4.0),
        ] {
            samples.push(Sample {
                scenario: Scenario::Crash,
                tool,
                sockets: 1,
                round,
                values: [(metric::DYING_NS, value)].into(),
            });
        }
        let of = |tool| samples.of(Scenario::Crash, tool, None, metric::DYING_NS);
        assert_eq!(
            paired(&of(Tool::Sockleak), &of(Tool::Tcpstates), |a, b| a / b),
            [2.0]
        );
        assert!(
            samples
                .of(Scenario::Crash, Tool::Sockleak, Some(2), metric::DYING_NS)
                .is_empty()
        );
    }
}
