//! What is measured, a file for each kind of it.

mod crashes;
mod uninvolved;

use std::ops::Range;
use std::path::PathBuf;

use anyhow::Result;
use sockleak_kernel::descriptors;

pub use self::crashes::SETTLE;

use crate::samples::{Samples, Scenario};
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
    /// How often a round measures uninvolved changes.
    pub repeats: u32,
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
        let limit = descriptors::raise_limit(0)?.min(20_000);
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
            repeats: 8,
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
            repeats: 1,
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
        Scenario::Uninvolved => repeats(round, bench.sizes.repeats)
            .try_for_each(|round| uninvolved::compared(bench, round, samples)),
        Scenario::Crash => crashes::compared(bench, round, samples),
        Scenario::Walk => {
            repeats(round, bench.sizes.crashes).try_for_each(|round| crashes::walks(bench, round, samples))
        }
        Scenario::Answer => {
            repeats(round, bench.sizes.crashes).try_for_each(|round| crashes::answers(bench, round, samples))
        }
        Scenario::Curve => crashes::curve(bench, round, samples),
    }
}

/// The numbers of the repeats of a round.
fn repeats(round: u32, count: u32) -> Range<u32> {
    round * count..(round + 1) * count
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
