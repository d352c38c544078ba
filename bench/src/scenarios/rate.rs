//! What is left of the rate of a process that a tool does not look at, as precisely as can be: nothing but the tool's
//! programs come and go, hundreds of times.

use anyhow::{Context as _, Result};

use super::Bench;
use super::unrelated::Unrelated;
use crate::children::Process;
use crate::crash::attached;
use crate::roles::Baseline;
use crate::samples::{Sample, Samples, Scenario, Spread, metric};
use crate::switch::Switch;
use crate::tools::Tool;

/// The program of the last is at the exit of processes, where the unrelated one never comes: it shows by how much the
/// measurement itself is wrong.
const TOOLS: [Tool; 4] = [
    Tool::Sockleak,
    Tool::Baseline(Baseline::Bare),
    Tool::Baseline(Baseline::Empty),
    Tool::Baseline(Baseline::Reading),
];

/// Stretches after each change that do not count: the kernel rewrites the code of the tracepoint, and frees later what
/// was attached there.
const AFTER_A_CHANGE: usize = 4;

/// Measures with every tool in turn, so that all are measured in the same seconds.
///
/// # Errors
/// When something does not run.
pub fn measure(bench: &Bench, round: u32, samples: &mut Samples) -> Result<()> {
    let idle = Process::in_role(&["load"])?;
    let mut tools = TOOLS
        .into_iter()
        .map(|tool| {
            let switch = switch(bench, tool, idle.pid()).with_context(|| tool.to_string())?;
            Ok((tool, switch, Vec::new()))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut unrelated = Unrelated::start()?;
    let mut run = || {
        unrelated.run(AFTER_A_CHANGE)?;
        unrelated.run(bench.sizes.switched_stretches)?.medians()
    };
    let mut before = run()?;
    for number in 0..bench.sizes.switches {
        for (_, switch, kept) in &mut tools {
            switch.on()?;
            let traced = run()?;
            switch.off()?;
            let after = run()?;
            // Two pairs, so that what drifts hits both alike. A mean of both would be above 1 for nothing, since what
            // disturbs a stretch only makes it longer.
            for free in [before, after] {
                kept.push((free.0 / traced.0, free.1 / traced.1));
            }
            before = after;
        }
        // Each comes after each of the others, in case that one leaves something behind.
        tools.rotate_left(1);
        if number % tools.len() == 0 {
            tools.reverse();
        }
    }
    for (tool, _, kept) in tools {
        let median = |of: fn(&(f64, f64)) -> f64| Spread::of(kept.iter().map(of)).map(|spread| spread.median);
        let values = [
            (metric::KEPT, median(|kept| kept.0)),
            (metric::KEPT_CPU, median(|kept| kept.1)),
        ];
        samples.push(Sample {
            scenario: Scenario::Rate,
            tool,
            sockets: 0,
            round,
            values: values
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        });
    }
    Ok(())
}

/// What a tool has attached while it looks at one process, without the tool.
fn switch(bench: &Bench, tool: Tool, pid: u32) -> Result<Switch> {
    let process = bench.installed.start(tool, &bench.sockleak, &[pid])?;
    let mut process = process.context("somebody must look on")?;
    attached(tool, &process)?;
    let switch = Switch::of(process.pid())?;
    process.end(libc::SIGINT)?;
    Ok(switch)
}
