//! What a tool costs a process that it does not look at.

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use sockleak_ebpf::programs;

use super::Bench;
use super::unrelated::Unrelated;
use crate::accounting::Account;
use crate::children::Process;
use crate::crash::attached;
use crate::roles::{Baseline, churn};
use crate::samples::{Spread, metric};
use crate::tools::Tool;

pub const TOOLS: [Tool; 5] = [
    Tool::Sockleak,
    Tool::Baseline(Baseline::Bare),
    Tool::Tcpstates,
    Tool::Bpftrace,
    Tool::Nobody,
];

/// What each change costs, and what is left of the process's rate.
pub fn measure(bench: &Bench, tool: Tool) -> Result<Vec<(&'static str, f64)>> {
    let mut unrelated = Unrelated::start()?;
    let idle = Process::in_role(&["load"])?;
    let start = || {
        // Peers do not tell when they are attached, but their programs run then.
        let _accounting = enable_stats(Stats::RunTime).context("the kernel's accounting")?;
        let process = bench.installed.start(tool, &bench.sockleak, &[idle.pid()])?;
        process.iter().try_for_each(|process| attached(tool, process))?;
        anyhow::Ok(process)
    };
    let mut values = Vec::new();
    // The accounting itself takes time, so the rates are measured without.
    let accounting = enable_stats(Stats::RunTime).context("the kernel's accounting")?;
    if let Some(mut process) = start()? {
        let before = Account::of(process.pid())?.at(programs::INET_SOCK_SET_STATE);
        unrelated.run(bench.sizes.stretches)?;
        let work = Account::of(process.pid())?.at(programs::INET_SOCK_SET_STATE) - before;
        process.end(libc::SIGINT)?;
        values.push((metric::UNINVOLVED_NS, work.per_run()));
        values.push((metric::CHANGES, work.runs as f64));
        values.push((metric::MISSES, work.misses as f64));
    }
    drop(accounting);

    let pairs = (0..bench.sizes.pairs_of_rates)
        .map(|_| pair(&mut unrelated, bench.sizes.stretches, start))
        .collect::<Result<Vec<_>>>()?;
    let median = |of: fn(&Pair) -> f64| {
        let spread = Spread::of(pairs.iter().map(of));
        spread.map(|spread| spread.median).context("no pair was run")
    };
    values.push((metric::KEPT, median(|pair| pair.free.0 / pair.traced.0)?));
    values.push((metric::KEPT_CPU, median(|pair| pair.free.1 / pair.traced.1)?));
    let rate = median(|pair| f64::from(churn::STRETCH) / pair.traced.0)?;
    values.push((metric::RATE, rate));
    Ok(values)
}

/// Seconds that a stretch took without and with the tool, each on the clock and in CPU time.
struct Pair {
    free: (f64, f64),
    traced: (f64, f64),
}

/// Runs the process without and with the tool, with and without again, so that what drifts hits both alike.
fn pair(
    unrelated: &mut Unrelated,
    stretches: usize,
    start: impl Fn() -> Result<Option<Process>>,
) -> Result<Pair> {
    let mut free = unrelated.run(stretches)?;
    let process = start()?;
    // Meanwhile the tool does what it does once, after it is attached.
    unrelated.run(stretches)?;
    let mut traced = unrelated.run(stretches)?;
    traced.add(unrelated.run(stretches)?);
    if let Some(mut process) = process {
        process.end(libc::SIGINT)?;
    }
    // And now the kernel frees what the tool had.
    unrelated.run(stretches)?;
    free.add(unrelated.run(stretches)?);
    Ok(Pair {
        free: free.medians()?,
        traced: traced.medians()?,
    })
}
