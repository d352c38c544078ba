//! How soon after its start a tool sees anything.

use std::time::Instant;

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use sockleak_ebpf::programs;

use super::Bench;
use crate::accounting::{Account, newest_program, programs_since};
use crate::children::Process;
use crate::crash::{attached, make_an_event};
use crate::process;
use crate::samples::metric;
use crate::tools::Tool;

pub const TOOLS: [Tool; 3] = [Tool::Sockleak, Tool::Tcpstates, Tool::Bpftrace];

/// Makes changes of state until the tool's program ran for one.
pub fn measure(bench: &Bench, tool: Tool) -> Result<Vec<(&'static str, f64)>> {
    let _accounting = enable_stats(Stats::RunTime).context("the kernel's accounting")?;
    let idle = Process::in_role(&["load"])?;
    let newest = newest_program();
    let start = Instant::now();
    let process = bench.installed.start(tool, &bench.sockleak, &[idle.pid()])?;
    let mut process = process.context("somebody must look on")?;
    let pid = process.pid();
    process::wait_until("its first event", || {
        // A look at every descriptor takes as long as the wait between two looks, so half of a processor, and a tool may
        // start on more than one. So nobody looks before it can be there.
        if programs_since(newest) < tool.programs() {
            return Ok(None);
        }
        make_an_event()?;
        let account = Account::of(pid)?;
        // sockleak attaches this program last.
        let whole = tool != Tool::Sockleak || account.has_link(programs::SCHED_PROCESS_EXIT);
        Ok((whole && account.at(programs::INET_SOCK_SET_STATE).runs > 0).then_some(()))
    })
    .with_context(|| process.errors.look(|errors| errors.text()))?;
    let mut values = vec![(metric::ATTACHED_MS, start.elapsed().as_secs_f64() * 1e3)];
    values.push((metric::START_CPU_MS, process::cpu_time(pid)?.as_secs_f64() * 1e3));
    if tool == Tool::Sockleak {
        attached(tool, &process)?;
        let told = process
            .output
            .look(|written| written.lines().next().map(|(_, time)| time));
        let told = told.context("there is no first line")?;
        values.push((metric::TOLD_MS, (told - start).as_secs_f64() * 1e3));
    }
    process.end(libc::SIGINT)?;
    Ok(values)
}
