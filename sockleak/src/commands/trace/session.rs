//! One trace: what is attached and what is followed. `reports` makes its reports.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use jiff::Timestamp;
use sockleak_core::leftover::Countdown;
use sockleak_ebpf::{ORIGIN_LIVE, StateEvent, state};
use sockleak_kernel::decode::{self, Event};
use sockleak_kernel::load::Loaded;
use sockleak_kernel::tables::{Counters, Tables};
use sockleak_kernel::translate::{self, Translator};
use sockleak_kernel::{clock, tracepoint};
use tokio::sync::mpsc::UnboundedSender;

use super::aftermath;
use super::lending::Reported;
use super::namespaces::Namespaces;
use super::pace::Pace;
use super::processes::{ProcessId, Processes};
use super::survey::Survey;
use crate::commands::cli::TraceArgs;
use crate::output::{Loss, Notice, Output, ProcessChange, ProcessEvent, Status, TransitionEvent};

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
    pub(super) deaths: UnboundedSender<ProcessId>,
    /// Descendants that could not be watched.
    pub(super) unfollowed: u64,
    /// Processes that are not followed, as far as that was told.
    unfollowed_told: u64,
    pub countdown: Countdown,
    /// What tells the namespaces of the countdown from later ones with the same inode.
    pub(super) netns_cookies: HashMap<u32, Option<u64>>,
    pub output: &'a mut dyn Output,
    /// A report of a target was made.
    pub target_reported: bool,
    told_who_is_left: bool,
    /// Something was left behind or is still held.
    pub left_behind: bool,
    /// Lost events so far, each time with the moment (boot-time nanoseconds) at which they were noticed.
    losses: Vec<(u64, u64)>,
    pub(super) pace: Pace,
    /// Of processes that were not looked at yet.
    pub(super) surveys: HashMap<ProcessId, Survey>,
    /// Kept while other deaths wait for their reports.
    pub(super) reported: Reported,
}

impl<'a> Session<'a> {
    pub fn new(
        args: &'a TraceArgs,
        loaded: Loaded,
        tables: Tables,
        translator: Translator,
        deaths: UnboundedSender<ProcessId>,
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
            unfollowed: 0,
            unfollowed_told: 0,
            countdown: Countdown::new(hz),
            netns_cookies: HashMap::new(),
            output,
            target_reported: false,
            told_who_is_left: false,
            left_behind: false,
            losses: Vec::new(),
            pace: Pace::default(),
            surveys: HashMap::new(),
            reported: Reported::new(),
        }
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
                let (parent, time) = (fork.header.tgid, fork.header.time);
                self.forked(fork.child, parent, fork.flags, time);
                let comm = self.process_at(parent, time).map(|id| self.comm(id));
                self.output.process(&ProcessEvent {
                    time: self.translator.time(time),
                    pid: parent,
                    comm: comm.unwrap_or_default(),
                    what: ProcessChange::Fork { child: fork.child },
                })?;
            }
            Event::Exec(exec) => {
                let (pid, comm) = (exec.header.tgid, translate::comm(&exec.comm));
                let id = self.process_at(pid, exec.header.time);
                if id.is_some_and(|id| self.executed(id, &comm, exec.header.time)) {
                    self.output.process(&ProcessEvent {
                        time: self.translator.time(exec.header.time),
                        pid,
                        comm,
                        what: ProcessChange::Exec,
                    })?;
                }
            }
            Event::Death(death) => {
                if let Some(id) = self.process_at(death.tgid, death.time) {
                    self.dying(id)?;
                }
            }
            Event::State(event) => self.acted(&event)?,
        }
        Ok(())
    }

    /// The followed process that had this PID at that moment.
    pub(super) fn process_at(&self, pid: u32, time: u64) -> Option<ProcessId> {
        self.processes.at(pid, time).map(|(id, _)| id)
    }

    /// A living process listened, connected, or closed a socket.
    fn acted(&mut self, event: &StateEvent) -> Result<()> {
        let tgid = event.header.tgid;
        let Some(id) = self.process_at(tgid, event.header.time) else {
            return Ok(());
        };
        self.namespaces.sighted(id, event.netns);
        let closes = event.to != state::LISTEN && event.to != state::SYN_SENT;
        if let Some(followed) = self.processes.get_mut(id) {
            followed.closed |= closes;
            if !closes {
                followed.former = None;
            }
        }
        if !closes {
            return Ok(());
        }
        let (local, remote) = translate::event_addresses(event);
        let comm = self.owner(id, event.header.time)?;
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

    pub(super) fn comm(&self, id: ProcessId) -> String {
        self.processes
            .get(id)
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
        let processes = self.unfollowed + self.tables.counters().process_failed;
        self.output.lost(&Loss {
            time: Timestamp::now(),
            events: lost - told,
            processes: processes - std::mem::replace(&mut self.unfollowed_told, processes),
        })?;
        self.find_overlooked()
    }

    /// Says something on stderr. That nobody reads it changes nothing.
    pub fn tell(&mut self, notice: &Notice) {
        let _ = self.output.notice(notice);
    }

    /// Once the targets are reported, says who is still followed.
    pub fn tell_who_is_left(&mut self) {
        if self.told_who_is_left || self.is_busy() || !self.processes.targets_reported() {
            return;
        }
        self.told_who_is_left = true;
        let left = self.processes.alive();
        let left = left.map(|(id, followed)| (id.pid, followed.process.comm.clone()));
        let notice = Notice::StillFollowing(left.collect());
        self.tell(&notice);
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
        events_lost
            + follow_failed
            + process_failed
            + self.unfollowed
            + tracepoint::recursion_misses(&self.loaded.ebpf)
    }

    /// Something is dead and not reported: [`Session::report_settled`] is to be called soon.
    pub fn is_busy(&self) -> bool {
        self.processes.dead().next().is_some() || self.processes.dying().next().is_some()
    }

    /// Forgets sockets that living processes closed long ago, so that a busy client never fills the maps.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn sweep(&mut self) -> Result<()> {
        self.find_missed_deaths();
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
        let sockets = self.count_sockets()?;
        let processes = self.processes.alive().count() as u64;
        self.output.status(&Status::Watching {
            processes,
            sockets: sockets.map(|(listeners, connections)| listeners + connections),
        })?;
        Ok(())
    }

    /// Counts the listeners and the connections of the targets, for the line that says what is watched; `None` where they
    /// may not be looked at. The dump also makes a cookie for every socket there, which its time-wait mini socket will inherit.
    ///
    /// # Errors
    /// When sock_diag is missing or broken.
    pub fn count_sockets(&mut self) -> Result<Option<(u64, u64)>> {
        let ids: Vec<ProcessId> = self
            .processes
            .alive()
            .filter(|(_, followed)| followed.process.target)
            .map(|(id, _)| id)
            .collect();
        aftermath::count(&ids, &mut self.namespaces).map_err(Into::into)
    }
}
