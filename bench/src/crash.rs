//! A crash: processes with sockets in a network namespace of their own, killed while a tool looks on.

use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sockleak::kernel::stage;
use sockleak_ebpf::programs;

use crate::accounting::{self, Account, Work};
use crate::children::Process;
use crate::process::{self, Memory};
use crate::scenarios::Bench;
use crate::tools::{self, Tool};

/// Loopback addresses of the victims begin like this, so that their lines are told from those of others.
const ADDRESSES: &str = "127.66.";
/// Changes of state of a pair that is opened and killed, and of a listener.
const CHANGES_OF_A_PAIR: usize = 10;
const CHANGES_OF_A_LISTENER: usize = 2;
/// A peer that has printed nothing for so long has nothing left to print.
const SILENCE: Duration = Duration::from_millis(300);

/// What the sockets of a victim are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A listener and so many connections with both ends; 0 means no socket at all.
    Pairs(usize),
    /// One listener at this descriptor.
    High(u64),
}

/// How a crash is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub processes: usize,
    pub shape: Shape,
    /// The sockets are opened while the tool is attached, and not before.
    pub traced_from_birth: bool,
    /// Ask `ss` before and after.
    pub ss: bool,
}

impl Plan {
    /// Sockets that all reports together must have.
    pub fn sockets(&self) -> usize {
        self.processes
            * match self.shape {
                Shape::Pairs(0) => 0,
                Shape::Pairs(pairs) => 2 * pairs + 1,
                Shape::High(_) => 1,
            }
    }

    /// Changes of state from the opening to the last close.
    pub fn changes(&self) -> usize {
        let Shape::Pairs(pairs) = self.shape else {
            return self.processes * CHANGES_OF_A_LISTENER;
        };
        self.processes * (pairs * CHANGES_OF_A_PAIR + CHANGES_OF_A_LISTENER)
    }
}

/// What was seen of it.
#[derive(Default)]
pub struct Seen {
    /// The state program, while the sockets were opened and while they were closed.
    pub opening: Work,
    pub closing: Work,
    /// The programs at exit.
    pub walk: Work,
    /// From the last close to the last byte of the last report.
    pub answer: Option<Duration>,
    /// CPU time of the tool from the crash to then.
    pub cpu: Duration,
    /// When the tool was attached, with the peak of its start.
    pub rest: Option<Memory>,
    /// After the reports, with the peak since it was attached.
    pub after: Option<Memory>,
    /// Sockets in the reports, or that a baseline walked over.
    pub reported: usize,
    pub unknown: usize,
    pub time_waits: usize,
    /// Lines of a peer about sockets of the victims.
    pub printed: usize,
    pub told_lost: u64,
    /// Bytes of an element of the map of sockets, and of all maps.
    pub element: Option<u64>,
    pub maps: u64,
    pub ss_before: Option<Duration>,
    pub ss_after: Option<Duration>,
}

/// A report as far as it is checked.
#[derive(Deserialize)]
struct Report {
    sockets: Vec<IgnoredAny>,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    time_wait: usize,
    unknown: usize,
}

/// Does something in a network namespace of its own, which is empty but for loopback.
///
/// # Errors
/// Those of `body`, and when there is no right to make one.
pub fn in_a_namespace<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            stage::isolate().context("a network namespace")?;
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
    let process = bench.installed.start(tool, &bench.sockleak, &pids)?;
    let mut process = process.context("somebody must look on")?;
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
        let state = |account: &Account| account.at(programs::INET_SOCK_SET_STATE);
        let exit = |account: &Account| account.at(programs::SCHED_PROCESS_EXIT);
        seen.cpu = process::cpu_time(pid)?.saturating_sub(used);
        seen.after = has_own_peak.then(|| process::memory(pid)).transpose()?;
        seen.opening = state(&alive) - state(&born);
        seen.closing = state(&last) - state(&alive);
        seen.walk = exit(&last) - exit(&alive);
        measure_maps(pid, &mut seen)?;
    }
    if plan.ss {
        seen.ss_after = ss()?;
    }
    if let Tool::Baseline(_) = tool {
        process.tell("found")?;
        // The first line says that it is attached.
        seen.reported = process.answer(1)?.parse().context("a number of sockets")?;
    }
    if tool != Tool::SockleakText {
        process.end(libc::SIGINT)?;
    }
    read_output(tool, &process, &mut seen)?;
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
        Tool::Baseline(_) => process.answer(0).map(drop),
        Tool::Tcpstates | Tool::Bpftrace => process::wait_until("its first event", || {
            make_an_event()?;
            let account = Account::of(process.pid())?;
            Ok((account.at(programs::INET_SOCK_SET_STATE).runs > 0).then_some(()))
        }),
        Tool::Nobody => Ok(()),
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

fn measure_maps(pid: u32, seen: &mut Seen) -> Result<()> {
    let maps = accounting::maps(pid)?;
    seen.maps = maps.iter().map(|(_, map)| map.memory).sum();
    let sockets = maps.iter().find(|(name, _)| name == sockleak_ebpf::maps::SOCKETS);
    seen.element = sockets
        .zip(accounting::element_header()?)
        .map(|((_, map), header)| {
            // An element of a hash map has a header, and its key and value are padded (alloc_htab_elem).
            header + map.key.next_multiple_of(8) + map.value.next_multiple_of(8)
        });
    Ok(())
}

fn read_output(tool: Tool, process: &Process, seen: &mut Seen) -> Result<()> {
    process.output.look(|written| {
        let victims = |line: &[u8]| {
            line.windows(ADDRESSES.len())
                .any(|bytes| bytes == ADDRESSES.as_bytes())
        };
        if tool.prints_changes() {
            let lines = written.lines().filter(|(line, _)| victims(line));
            for (line, _) in lines {
                seen.printed += 1;
                // tcpstates prints the new state as a word, the one-liner as a number.
                let text = String::from_utf8_lossy(line);
                seen.time_waits += usize::from(text.contains("TIME_WAIT") || text.trim_end().ends_with(" 6"));
            }
            seen.told_lost = tools::told_lost(written) + process.errors.look(tools::told_lost);
        }
        if tool == Tool::SockleakText {
            let text = written.text();
            seen.reported = text.lines().find_map(sockets_told).unwrap_or(0);
        }
        if tool == Tool::Sockleak {
            for (line, _) in written
                .lines()
                .filter(|(line, _)| line.starts_with(br#"{"type":"report""#))
            {
                let report: Report = serde_json::from_slice(line).context("a report that is no JSON")?;
                seen.reported += report.sockets.len();
                seen.unknown += report.summary.unknown;
                seen.time_waits += report.summary.time_wait;
            }
        }
        Ok(())
    })
}

/// The number in the line of a text report that begins with it, which may have separators.
fn sockets_told(line: &str) -> Option<usize> {
    let (number, _) = line.split_once(" open when it died")?;
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
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

struct Victims {
    processes: Vec<Process>,
    plan: Plan,
}

impl Victims {
    fn start(plan: Plan) -> Result<Self> {
        let processes = (0..plan.processes).map(|_| Process::in_role(&["load"]));
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
            plan,
        })
    }

    /// Lets all of them open their sockets, at the same time.
    fn open(&mut self) -> Result<()> {
        for (number, process) in self.processes.iter_mut().enumerate() {
            match self.plan.shape {
                Shape::Pairs(0) => return Ok(()),
                Shape::Pairs(pairs) => process.tell(&format!("pairs {pairs} {ADDRESSES}{}.1", number + 1))?,
                Shape::High(fd) => process.tell(&format!("high {fd}"))?,
            }
        }
        for process in &self.processes {
            process.answer(0)?;
        }
        Ok(())
    }

    /// Kills all of them; the moment of the last close.
    fn crash(&mut self) -> Result<Instant> {
        let pidfds = self
            .processes
            .iter()
            .map(Process::pidfd)
            .collect::<Result<Vec<_>>>()?;
        for process in &self.processes {
            process::signal(process.pid(), libc::SIGSEGV)?;
        }
        process::wait_for_deaths(&pidfds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reports_tell_their_number() {
        assert_eq!(
            sockets_told("18,001 sockets open when it died: 1 closed"),
            Some(18_001)
        );
        assert_eq!(sockets_told("1 socket open when it died"), Some(1));
        assert_eq!(sockets_told("  COUNT  LADDR"), None);
    }

    #[test]
    fn a_crash_of_the_usual_size() {
        let plan = Plan {
            processes: 1,
            shape: Shape::Pairs(9000),
            traced_from_birth: true,
            ss: false,
        };
        assert_eq!((plan.sockets(), plan.changes()), (18_001, 90_002));
        let nothing = Plan {
            shape: Shape::Pairs(0),
            ..plan
        };
        assert_eq!(nothing.sockets(), 0);
    }
}
