//! What is measured, a file for each kind of it.

mod crashes;
mod uninvolved;

use std::ops::Range;

use anyhow::Result;

pub use self::crashes::SETTLE;

use crate::plan::Bench;
use crate::samples::{Samples, Scenario};
use crate::tools::Tool;

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
