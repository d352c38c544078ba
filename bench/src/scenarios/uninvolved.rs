//! What a tool costs a process that it does not look at.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use sockleak_ebpf::programs;

use super::Bench;
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

/// Runs the process without and with the tool, with and without again, so that what drifts hits both alike.
pub fn measure(bench: &Bench, tool: Tool) -> Result<Vec<(&'static str, f64)>> {
    let mut churn = Churn::start(bench.sizes.stretches)?;
    let idle = Process::in_role(&["load"])?;
    let mut free = churn.run()?;

    let accounting = enable_stats(Stats::RunTime).context("the kernel's accounting")?;
    let mut process = bench.installed.start(tool, &bench.sockleak, &[idle.pid()])?;
    let mut values = Vec::new();
    if let Some(process) = &process {
        attached(tool, process)?;
        let before = Account::of(process.pid())?.at(programs::INET_SOCK_SET_STATE);
        churn.run()?;
        let work = Account::of(process.pid())?.at(programs::INET_SOCK_SET_STATE) - before;
        values.push((metric::UNINVOLVED_NS, work.per_run()));
        values.push((metric::CHANGES, work.runs as f64));
        values.push((metric::MISSES, work.misses as f64));
    }
    // The accounting itself takes time, so the rates are measured without.
    drop(accounting);
    let mut traced = churn.run()?;
    traced.add(churn.run()?);
    if let Some(process) = &mut process {
        process.end(libc::SIGINT)?;
    }
    free.add(churn.run()?);

    let (free, traced) = (free.medians()?, traced.medians()?);
    values.push((metric::KEPT, free.0 / traced.0));
    values.push((metric::KEPT_CPU, free.1 / traced.1));
    values.push((metric::RATE, f64::from(churn::STRETCH) / traced.0));
    Ok(values)
}

/// The unrelated process.
struct Churn {
    process: Process,
    stretches: usize,
    answers: usize,
}

/// How long stretches took, on the clock and in CPU time.
struct Stretches(Vec<Duration>, Vec<Duration>);

impl Churn {
    /// Starts it, and lets it come to speed: the first stretches take a tenth longer.
    fn start(stretches: usize) -> Result<Self> {
        const BEFORE: usize = 4;
        let mut churn = Self {
            process: Process::in_role(&["churn"])?,
            stretches,
            answers: 0,
        };
        for _ in 0..BEFORE {
            churn.run()?;
        }
        Ok(churn)
    }

    fn run(&mut self) -> Result<Stretches> {
        self.process.tell(&format!("run {}", self.stretches))?;
        let answer = self.process.answer(self.answers)?;
        self.answers += 1;
        let (wall, cpu) = churn::parse(&answer)?;
        Ok(Stretches(wall, cpu))
    }
}

impl Stretches {
    fn add(&mut self, more: Self) {
        self.0.extend(more.0);
        self.1.extend(more.1);
    }

    /// Seconds that the middle one took, on the clock and in CPU time.
    fn medians(&self) -> Result<(f64, f64)> {
        let median = |times: &[Duration]| {
            let spread = Spread::of(times.iter().map(Duration::as_secs_f64));
            spread.map(|spread| spread.median).context("no stretch was run")
        };
        Ok((median(&self.0)?, median(&self.1)?))
    }
}
