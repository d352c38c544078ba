//! What a tool costs a process that it does not look at.

use anyhow::{Context as _, Result};
use sockleak_kernel::accounting;

use super::in_turn;
use crate::accounting::Account;
use crate::children::Process;
use crate::crash::{attached, in_a_namespace};
use crate::plan::Bench;
use crate::samples::{Sample, Samples, Scenario, metric};
use crate::tools::{STATE, Tool};

const TOOLS: [Tool; 4] = [Tool::Sockleak, Tool::Bare, Tool::Tcpstates, Tool::Bpftrace];

/// Stretches in which the unrelated process comes to speed: its first connections take a tenth longer.
const BEFORE: usize = 40;

/// Each of the tools that are here, one after the other: so that what a tool is compared with was measured in the same
/// second.
///
/// # Errors
/// When something does not run.
pub fn compared(bench: &Bench, round: u32, samples: &mut Samples) -> Result<()> {
    for tool in in_turn(bench, &TOOLS, round) {
        let values = in_a_namespace(|| measure(bench, tool)).with_context(|| tool.to_string())?;
        samples.push(Sample {
            scenario: Scenario::Uninvolved,
            tool,
            sockets: 0,
            round,
            values: values.into(),
        });
    }
    Ok(())
}

/// What each change costs.
fn measure(bench: &Bench, tool: Tool) -> Result<[(&'static str, f64); 3]> {
    let mut unrelated = Process::in_role(&["churn"])?;
    unrelated.tell(&format!("run {BEFORE}"))?;
    unrelated.answer(0)?;
    let idle = Process::in_role(&["load"])?;
    let _accounting = accounting::enable().context("the kernel's accounting")?;
    let mut process = bench.installed.start(tool, &bench.sockleak, &[idle.pid()])?;
    attached(tool, &process)?;
    let before = Account::of(process.pid())?.at(STATE);
    unrelated.tell(&format!("run {}", bench.sizes.stretches))?;
    unrelated.answer(1)?;
    let work = Account::of(process.pid())?.at(STATE) - before;
    process.end()?;
    Ok([
        (metric::UNINVOLVED_NS, work.per_run()),
        (metric::CHANGES, work.runs as f64),
        (metric::MISSES, work.misses as f64),
    ])
}
