//! A crash: processes with sockets in a network namespace of their own, killed while a tool looks on.

mod seen;
mod victims;

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, anyhow, bail};
use sockleak_kernel::sandbox;

pub use self::seen::Seen;
use self::victims::Victims;
pub use self::victims::{Plan, Shape};
use crate::accounting::{self, Account};
use crate::children::Process;
use crate::fdinfo;
use crate::plan::Bench;
use crate::process;
use crate::tools::{EXIT, STATE, Tool};

/// A peer that has printed nothing for so long has nothing left to print.
const SILENCE: Duration = Duration::from_millis(300);

/// Does something in a network namespace of its own, which is empty but for loopback.
///
/// # Errors
/// Those of `body`, and when there is no right to make one.
pub fn in_a_namespace<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            sandbox::isolate().context("a network namespace")?;
            body()
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a measurement panicked")))
    })
}

/// Makes a crash. The kernel must be accounting already.
///
/// # Errors
/// When something does not run, or does not come to an end.
pub fn run(bench: &Bench, tool: Tool, plan: Plan) -> Result<Seen> {
    in_a_namespace(|| {
        let seen = watch(bench, tool, plan);
        seen.with_context(|| format!("{tool}, {} processes with {:?}", plan.processes, plan.shape))
    })
}

fn watch(bench: &Bench, tool: Tool, plan: Plan) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut victims = Victims::start(plan)?;
    if !plan.traced_from_birth {
        victims.open()?;
    }
    // It outlives the others, so that the tool does too and can be asked.
    let anchor = Process::in_role(&["load"])?;
    let mut pids: Vec<u32> = victims.processes.iter().map(Process::pid).collect();
    if tool != Tool::SockleakText {
        pids.push(anchor.pid());
    }
    let mut process = bench.installed.start(tool, &bench.sockleak, &pids)?;
    attached(tool, &process)?;
    let pid = process.pid();
    seen.rest = Some(process::memory(pid)?);
    let has_own_peak = process::reset_peak(pid);

    let born = Account::of(pid)?;
    if plan.traced_from_birth {
        victims.open()?;
    }
    if tool.prints_changes() {
        process.output.wait_for_silence(SILENCE)?;
    }
    if plan.ss {
        seen.ss_before = ss()?;
    }
    let alive = Account::of(pid)?;
    let used = process::cpu_time(pid)?;
    let dead = victims.crash()?;

    seen.answer = answered(tool, &mut process, plan.processes, dead)?;
    if tool != Tool::SockleakText {
        let last = Account::of(pid)?;
        let state = |account: &Account| account.at(STATE);
        let exit = |account: &Account| account.at(EXIT);
        seen.cpu = process::cpu_time(pid)?.saturating_sub(used);
        seen.after = has_own_peak.then(|| process::memory(pid)).transpose()?;
        seen.opening = state(&alive) - state(&born);
        seen.closing = state(&last) - state(&alive);
        seen.walk = exit(&last) - exit(&alive);
        seen.maps = accounting::map_memory(pid)?;
    }
    if plan.ss {
        seen.ss_after = ss()?;
    }
    if tool.prints_changes() {
        // The kernel tells a perf buffer's reader of losses with the next event that finds room.
        make_an_event_on_each_cpu()?;
        process.output.wait_for_silence(SILENCE)?;
    }
    if tool != Tool::SockleakText {
        process.end()?;
    }
    seen.read_output(tool, &process)?;
    Ok(seen)
}

/// Waits until the tool sees what happens.
///
/// # Errors
/// When it does not come to that.
pub fn attached(tool: Tool, process: &Process) -> Result<()> {
    match tool {
        Tool::Sockleak => process.output.wait("watch line", |written| {
            let line = written.lines().next()?.0;
            line.starts_with(br#"{"type":"watch""#).then_some(())
        }),
        Tool::SockleakText => process.errors.wait("line about what is watched", |written| {
            written.text().contains("watching").then_some(())
        }),
        Tool::Bare => process.answer(0).map(drop),
        Tool::Tcpstates | Tool::Bpftrace => process::wait_until("its first event", || {
            make_an_event()?;
            let account = Account::of(process.pid())?;
            Ok((account.at(STATE).runs > 0).then_some(()))
        }),
    }
    .with_context(|| process.errors.look(|errors| errors.text()))
}

/// A socket becomes LISTEN, and CLOSE again.
///
/// # Errors
/// When the kernel refuses it.
pub fn make_an_event() -> Result<()> {
    drop(TcpListener::bind("127.0.0.1:0")?);
    Ok(())
}

/// The same on each processor that this process may use.
fn make_an_event_on_each_cpu() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = fdinfo::value(&status, "Cpus_allowed_list").context("the processors")?;
    for cpu in processors(allowed).context("the processors")? {
        let mut event = Command::new("taskset");
        event
            .args(["--cpu-list", &cpu.to_string()])
            .arg(env::current_exe()?)
            .arg("event");
        let status = event.status().context("taskset could not be started")?;
        if !status.success() {
            bail!("no event could be made on processor {cpu}: {status}");
        }
    }
    Ok(())
}

/// The numbers in a list like `0-3,8`.
fn processors(list: &str) -> Option<Vec<usize>> {
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    let ranges: Vec<_> = ranges.collect::<Option<_>>()?;
    Some(ranges.into_iter().flatten().collect())
}

/// Waits until the tool has said all about the crash; how long after the last close that was, where it reports.
fn answered(tool: Tool, process: &mut Process, reports: usize, dead: Instant) -> Result<Option<Duration>> {
    let last = match tool {
        Tool::Sockleak => process.output.wait("report of every process", |written| {
            let is_report = |line: &[u8]| line.starts_with(br#"{"type":"report""#);
            let mut moments = written.lines().filter(|(line, _)| is_report(line));
            moments.nth(reports - 1).map(|(_, time)| time)
        })?,
        Tool::SockleakText => {
            process.wait()?;
            let last = process.output.look(|written| written.last());
            last.context("there is no report")?
        }
        _ => {
            process.output.wait_for_silence(SILENCE)?;
            return Ok(None);
        }
    };
    Ok(Some(last.saturating_duration_since(dead)))
}

/// How long `ss -tano` takes in this namespace, to its last byte; `None` where it is not installed.
fn ss() -> Result<Option<Duration>> {
    let start = Instant::now();
    let Ok(mut ss) = Process::start(Command::new("ss").arg("-tano")) else {
        return Ok(None);
    };
    ss.wait()?;
    Ok(ss.output.look(|written| written.last()).map(|last| last - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        assert_eq!(processors("0"), Some(vec![0]));
        assert_eq!(processors("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(processors(""), None);
    }
}
