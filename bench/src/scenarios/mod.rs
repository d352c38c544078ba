//! What is measured, a file for each kind of it.

mod crashes;
mod rate;
mod start;
mod uninvolved;
mod unrelated;

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use self::crashes::SETTLE;

use crate::crash::in_a_namespace;
use crate::process;
use crate::samples::{Sample, Samples, Scenario};
use crate::tools::{Installed, Tool};

/// What every measurement needs.
pub struct Bench {
    pub sockleak: PathBuf,
    pub installed: Installed,
    pub sizes: Sizes,
}

/// How much of everything.
pub struct Sizes {
    /// Connections of the process whose crash is compared, with both ends in it.
    pub pairs: usize,
    /// Processes and the connections of each, for the curve.
    pub curve: Vec<(usize, usize)>,
    /// Stretches of connections that an unrelated process makes at a time.
    pub stretches: usize,
    /// How often a tool comes and goes while it makes them.
    pub pairs_of_rates: usize,
    /// Stretches with, and without, nothing but a tool's programs.
    pub switched_stretches: usize,
    /// How often these come and go.
    pub switches: usize,
    /// How often a round measures uninvolved changes.
    pub repeats: u32,
    /// How often it starts the tools.
    pub starts: u32,
    /// How often it measures the walks and the answers.
    pub crashes: u32,
    /// A descriptor at the end of a large table.
    pub high: u64,
}

impl Sizes {
    /// Those of the tables.
    ///
    /// # Errors
    /// When the limit of descriptors is not to be had.
    pub fn full() -> Result<Self> {
        /// What a process has open beside its sockets.
        const OTHERS: u64 = 20;
        let limit = process::raise_descriptor_limit()?.min(20_000);
        let most = (limit.saturating_sub(OTHERS) / 2) as usize;
        let curve = [
            (1, 0),
            (1, 50),
            (1, 500),
            (1, 5000),
            (1, 9000),
            (4, most),
            (8, most),
        ];
        Ok(Self {
            pairs: most.min(9000),
            curve: curve
                .map(|(processes, pairs)| (processes, pairs.min(most)))
                .into(),
            stretches: 5,
            pairs_of_rates: 2,
            switched_stretches: 4,
            switches: 300,
            repeats: 8,
            starts: 24,
            crashes: 4,
            high: limit - 1,
        })
    }

    /// Those of a smoke test.
    pub fn smoke() -> Self {
        Self {
            pairs: 100,
            curve: vec![(1, 0), (1, 50), (2, 50)],
            stretches: 1,
            pairs_of_rates: 1,
            switched_stretches: 1,
            switches: 1,
            repeats: 1,
            starts: 1,
            crashes: 1,
            high: 999,
        }
    }
}

/// Measures a scenario once with each tool that is there.
///
/// # Errors
/// When something does not run.
pub fn run(bench: &Bench, scenario: Scenario, round: u32, samples: &mut Samples) -> Result<()> {
    match scenario {
        Scenario::Uninvolved => measure_each(
            (bench, repeats(round, bench.sizes.repeats), samples),
            scenario,
            &uninvolved::TOOLS,
            uninvolved::measure,
        ),
        Scenario::Rate => in_a_namespace(|| rate::measure(bench, round, samples)),
        Scenario::Crash => crashes::compared(bench, round, samples),
        Scenario::Walk => {
            repeats(round, bench.sizes.crashes).try_for_each(|round| crashes::walks(bench, round, samples))
        }
        Scenario::Answer => {
            repeats(round, bench.sizes.crashes).try_for_each(|round| crashes::answers(bench, round, samples))
        }
        Scenario::Start => measure_each(
            (bench, repeats(round, bench.sizes.starts), samples),
            scenario,
            &start::TOOLS,
            start::measure,
        ),
        Scenario::Curve => crashes::curve(bench, round, samples),
    }
}

/// The numbers of the repeats of a round.
fn repeats(round: u32, count: u32) -> Range<u32> {
    round * count..(round + 1) * count
}

/// Measures each of the tools that are here, in a network namespace of its own, one after the other and all again: so
/// that what a tool is compared with was measured in the same second.
fn measure_each(
    (bench, rounds, samples): (&Bench, Range<u32>, &mut Samples),
    scenario: Scenario,
    tools: &[Tool],
    measure: impl Fn(&Bench, Tool) -> Result<Vec<(&'static str, f64)>> + Sync,
) -> Result<()> {
    for round in rounds {
        for tool in in_turn(bench, tools, round) {
            let values = in_a_namespace(|| measure(bench, tool)).with_context(|| tool.to_string())?;
            samples.push(Sample {
                scenario,
                tool,
                sockets: 0,
                round,
                values: values.into_iter().collect(),
            });
        }
    }
    Ok(())
}

/// Those of the tools that are here, in an order that is another one in each round.
fn in_turn(bench: &Bench, tools: &[Tool], round: u32) -> Vec<Tool> {
    let mut tools: Vec<Tool> = tools
        .iter()
        .copied()
        .filter(|tool| bench.installed.has(*tool))
        .collect();
    let first = round as usize % tools.len().max(1);
    tools.rotate_left(first);
    tools
}
