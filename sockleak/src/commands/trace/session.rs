//! One trace: what is attached and what is followed. `reports` makes its reports.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use jiff::Timestamp;
use sockleak_ebpf::{ORIGIN_LIVE, StateEvent, state};
use tokio::sync::mpsc::UnboundedSender;

use super::aftermath;
use super::lending::Reported;
use super::namespaces::Namespaces;
use super::processes::{Processes, Stage};
use super::survey::Survey;
use super::targets::Target;
use crate::commands::cli::TraceArgs;
use crate::kernel::decode::{self, Event};
use crate::kernel::load::Loaded;
use crate::kernel::tables::{Counters, Tables};
use crate::kernel::translate::{self, Translator};
use crate::kernel::{clock, pidfd, proc, tracepoint, wait};
use crate::output::{Output, ProcessChange, ProcessEvent, Status, TransitionEvent};
use crate::postmortem::Countdown;

/// A socket that a living process closed is of no interest when it has been gone for this long.
const STALE: Duration = Duration::from_secs(300);

/// One trace.
pub struct Session<'a> {
    pub(super) args: &'a TraceArgs,
    pub(super) loaded: Loaded,
    pub(super) tables: Tables,
    pub translator: Translator,
    pub processes: Processes,
    pub(super) namespaces: Namespaces,
    deaths: UnboundedSender<u32>,
    /// Processes that closed something themselves while they were watched.
    pub(super) closers: HashSet<u32>,
    pub countdown: Countdown,
    /// What tells the namespaces of the countdown from later ones with the same inode.
    pub(super) netns_cookies: HashMap<u32, Option<u64>>,
    pub output: &'a mut dyn Output,
    /// A report of a target was made.
    pub target_reported: bool,
    /// Something was left behind or is still held.
    pub left_behind: bool,
    /// Lost events so far, each time with the moment (boot-time nanoseconds) at which they were noticed.
    losses: Vec<(u64, u64)>,
    pub(super) looked: Option<Instant>,
    /// By PID, of processes that were not looked at yet.
    pub(super) surveys: HashMap<u32, Survey>,
    /// Kept while other deaths wait for their reports.
    pub(super) reported: Reported,
}

impl<'a> Session<'a> {
    pub fn new(
        args: &'a TraceArgs,
        loaded: Loaded,
        tables: Tables,
        translator: Translator,
        deaths: UnboundedSender<u32>,
        output: &'a mut dyn Output,
    ) -> Self {
        let hz = translator.hz;
        Self {
            args,
            loaded,
            tables,
            translator,
            processes: Processes::default(),
            namespaces: Namespaces::default(),
            deaths,
            closers: HashSet::new(),
            countdown: Countdown::new(hz),
            netns_cookies: HashMap::new(),
            output,
            target_reported: false,
            left_behind: false,
            losses: Vec::new(),
            looked: None,
            surveys: HashMap::new(),
            reported: Reported::new(),
        }
    }

    /// Watches a target and its children from now on.
    ///
    /// # Errors
    /// When it died meanwhile, or the map is full.
    pub fn follow(&mut self, target: Target) -> Result<()> {
        let pid = target.process.pid;
        self.tables.watch(pid, 0)?;
        self.namespaces.enter(pid);
        target.still_there()?;
        let Target {
            process,
            parent,
            pidfd,
            ..
        } = target;
        self.processes.add(process, parent);
        self.await_death(pid, pidfd)?;
        if !self.args.no_follow {
            self.follow_descendants(pid)?;
        }
        Ok(())
    }

    /// Children that were alive before the attach. The hooks catch those that are forked from a watched
    /// process, so the search ends when it finds nobody new.
    fn follow_descendants(&mut self, pid: u32) -> Result<()> {
        loop {
            let new: Vec<u32> = proc::descendants(pid)
                .context("cannot read /proc")?
                .into_iter()
                .filter(|child| self.processes.get(*child).is_none())
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for child in new {
                let Ok(target) = Target::find(child, false) else {
                    continue;
                };
                if self.tables.watched(child).is_none() {
                    self.tables.watch(child, target.parent)?;
                }
                self.namespaces.enter(child);
                if proc::share_files(child, target.parent) == Some(true) {
                    self.processes.share_files(child, target.parent);
                }
                self.processes.add(target.process, target.parent);
                self.await_death(child, target.pidfd)?;
            }
        }
    }

    /// Sends the process's PID once it is dead.
    fn await_death(&self, pid: u32, pidfd: OwnedFd) -> Result<()> {
        let pidfd = wait::readable(pidfd).context("cannot wait for a pidfd")?;
        let deaths = self.deaths.clone();
        tokio::spawn(async move {
            let _ = pidfd.readable().await;
            // Nobody listens any more when the trace has ended.
            let _ = deaths.send(pid);
        });
        Ok(())
    }

    /// Takes every event out of the ring.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn drain(&mut self, ring: &mut RingBuf<MapData>) -> Result<()> {
        while let Some(item) = ring.next() {
            match decode::event(&item) {
                Ok(event) => self.take(event)?,
                Err(error) => log::warn!("{error}"),
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Fork(fork) => {
                self.forked(fork.child, fork.header.tgid, fork.flags)?;
                self.output.process(&ProcessEvent {
                    time: self.translator.time(fork.header.time),
                    pid: fork.header.tgid,
                    comm: self.comm(fork.header.tgid),
                    what: ProcessChange::Fork { child: fork.child },
                })?;
            }
            Event::Exec(exec) => {
                let (pid, comm) = (exec.header.tgid, translate::comm(&exec.comm));
                if self.executed(pid, &comm, exec.header.time) {
                    self.output.process(&ProcessEvent {
                        time: self.translator.time(exec.header.time),
                        pid,
                        comm,
                        what: ProcessChange::Exec,
                    })?;
                }
            }
            // The pidfd tells when its closes are done.
            Event::Death(_) => {}
            Event::State(event) => self.acted(&event)?,
        }
        Ok(())
    }

    fn forked(&mut self, child: u32, parent: u32, flags: u32) -> Result<()> {
        // A target keeps its place after its report, and then another process may have its number.
        let known = self.processes.get(child).map(|known| &known.stage);
        if matches!(known, Some(Stage::Alive | Stage::Dead(_))) {
            return Ok(());
        }
        self.processes.forked(child, parent, flags);
        match pidfd::open(child) {
            Ok(pidfd) => self.await_death(child, pidfd)?,
            Err(_) => self.died(child),
        }
        Ok(())
    }

    /// A living process listened, connected, or closed a socket.
    fn acted(&mut self, event: &StateEvent) -> Result<()> {
        let tgid = event.header.tgid;
        self.namespaces.sighted(tgid, event.netns);
        if event.to == state::LISTEN || event.to == state::SYN_SENT {
            if let Some(followed) = self.processes.get_mut(tgid) {
                followed.former = None;
            }
            return Ok(());
        }
        self.closers.insert(tgid);
        let (local, remote) = translate::event_addresses(event);
        let comm = self.owner(tgid, event.header.time)?;
        self.output.transition(&TransitionEvent {
            time: self.translator.time(event.header.time),
            pid: tgid,
            comm,
            local,
            remote,
            from: translate::state(event.from),
            to: translate::state(event.to),
        })?;
        Ok(())
    }

    pub(super) fn comm(&self, pid: u32) -> String {
        self.processes
            .get(pid)
            .map_or_else(String::new, |followed| followed.process.comm.clone())
    }

    /// Says so when events were lost, and finds the processes whose events they were.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn tell_losses(&mut self) -> Result<()> {
        let lost = self.lost_events();
        let told = self.losses.last().map_or(0, |(_, lost)| *lost);
        if lost == told {
            return Ok(());
        }
        // Who reads of the loss may go on at once, and what dies then did not lose these events.
        self.losses.push((clock::boottime_ns(), lost));
        self.output.lost(Timestamp::now(), lost - told)?;
        for pid in self.tables.watched_pids() {
            if let Some(watched) = self.tables.watched(pid) {
                self.forked(pid, watched.parent, watched.flags)?;
            }
        }
        for (key, death) in self.tables.deaths() {
            self.forked(key.tgid, death.watched.parent, death.watched.flags)?;
        }
        Ok(())
    }

    /// Events that were lost, as far as it was noticed: those of the whole trace, and those that were not
    /// noticed before `since` (boot-time nanoseconds).
    pub(super) fn lost_since(&self, since: u64) -> u64 {
        let before = self.losses.iter().rev().find(|(noticed, _)| *noticed < since);
        self.lost_events() - before.map_or(0, |(_, lost)| *lost)
    }

    pub(super) fn lost_something(&self) -> bool {
        !self.losses.is_empty()
    }

    fn lost_events(&self) -> u64 {
        let Counters {
            events_lost,
            follow_failed,
            process_failed,
        } = self.tables.counters();
        events_lost + follow_failed + process_failed + tracepoint::recursion_misses(&self.loaded.ebpf)
    }

    /// The pidfd is readable: every synchronous close is done.
    pub fn died(&mut self, pid: u32) {
        if let Some(followed) = self.processes.get_mut(pid)
            && matches!(followed.stage, Stage::Alive)
        {
            followed.stage = Stage::Dead(Instant::now());
        }
    }

    /// Something is dead and not reported: [`Session::report_settled`] is to be called soon.
    pub fn is_busy(&self) -> bool {
        self.processes.dead().next().is_some()
    }

    /// Forgets sockets that living processes closed long ago, so that a busy client never fills the maps.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn sweep(&mut self) -> Result<()> {
        let now = clock::boottime_ns();
        let old = |time: u64| now.saturating_sub(time) > STALE.as_nanos() as u64;
        let mut stale = Vec::new();
        self.tables.visit_sockets(
            |key| key.origin == ORIGIN_LIVE && old(key.time),
            |key, record| {
                let mut changes = record.changes.iter();
                if changes.any(|change| change.to() == state::CLOSE && old(record.time + change.after())) {
                    stale.push(key);
                }
            },
        )?;
        Ok(self.tables.forget_sockets(&stale)?)
    }

    /// Shows on a terminal what is watched.
    ///
    /// # Errors
    /// When stderr cannot be written, or sock_diag does not answer.
    pub fn show_watched(&mut self) -> Result<()> {
        let (listeners, connections) = self.count_sockets()?;
        let processes = self.processes.alive().count() as u64;
        self.output.status(&Status::Watching {
            processes,
            sockets: listeners + connections,
        })?;
        Ok(())
    }

    /// Counts the listeners and the connections of the targets, for the line that says what is watched. The
    /// dump also makes a cookie for every socket there, which its time-wait mini socket will inherit.
    ///
    /// # Errors
    /// When sock_diag is missing or broken.
    pub fn count_sockets(&mut self) -> Result<(u64, u64)> {
        let pids: Vec<u32> = self
            .processes
            .alive()
            .filter(|followed| followed.process.target)
            .map(|followed| followed.process.pid)
            .collect();
        aftermath::count(&pids, &mut self.namespaces).map_err(Into::into)
    }
}
