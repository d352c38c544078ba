//! Whom the trace follows: targets, descendants that were there before, and children from their fork to their death.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use anyhow::{Context as _, Result};
use sockleak_core::observed::Process;
use sockleak_ebpf::Watched;
use sockleak_kernel::pidfd::{self, PidfdError};
use sockleak_kernel::tables::TableError;
use sockleak_kernel::{clock, proc, wait};

use super::deaths::Deaths;
use super::processes::{ProcessId, Stage};
use super::session::Session;
use super::targets::Target;

impl Session<'_> {
    /// Watches the targets and their children from now on.
    ///
    /// # Errors
    /// When one died meanwhile, or the map is full.
    pub fn follow(&mut self, targets: Vec<Target>) -> Result<()> {
        let pids: Vec<u32> = targets.iter().map(|target| target.process.pid).collect();
        for target in targets {
            self.follow_target(target)?;
        }
        // One target may descend from another.
        if !self.args.no_follow {
            for pid in pids {
                self.follow_descendants(pid)?;
            }
        }
        Ok(())
    }

    fn follow_target(&mut self, target: Target) -> Result<()> {
        let id = self.watch(target.process.pid, 0)?;
        self.namespaces.enter(id);
        target.still_there()?;
        let Target {
            process,
            parent,
            pidfd,
            ..
        } = target;
        self.processes.add(id, process, parent);
        self.await_death(id, pidfd)
    }

    /// Watches a process that lives, unless the hook of its fork has done so just now: the event of that is still to
    /// come then, and must find it.
    fn watch(&mut self, pid: u32, parent: u32) -> Result<ProcessId, TableError> {
        let now = clock::boottime_ns();
        let since = match self.tables.watched(pid) {
            Some(watched) => watched.start,
            None => {
                self.tables.watch(pid, parent)?;
                now
            }
        };
        Ok(ProcessId { pid, since })
    }

    /// Children that were alive before the attach. The hooks catch those that are forked from a watched
    /// process, so the search ends when it finds nobody new.
    fn follow_descendants(&mut self, pid: u32) -> Result<()> {
        let mut tried = HashSet::new();
        loop {
            let new: Vec<u32> = proc::descendants(pid)
                .context("cannot read /proc")?
                .into_iter()
                // Whom the hook of its fork watches is added by the event of that.
                .filter(|child| self.tables.watched(*child).is_none() && tried.insert(*child))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for child in new {
                self.follow_descendant(child)?;
            }
        }
    }

    /// A zombie is not followed: it holds nothing any more.
    fn follow_descendant(&mut self, pid: u32) -> Result<()> {
        let Ok(found) = Target::find(pid, false) else {
            let holds_nothing = match proc::stat(pid) {
                Ok(stat) => stat.holds_nothing(),
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            self.unfollowed += u64::from(!holds_nothing);
            return Ok(());
        };
        let Ok(id) = self.watch(pid, found.parent) else {
            self.unfollowed += 1;
            return Ok(());
        };
        self.namespaces.enter(id);
        let missed_exit =
            found.still_there().is_err() || proc::stat(pid).map_or(true, |stat| stat.is_exiting());
        let Target {
            process,
            parent,
            pidfd,
            ..
        } = found;
        if proc::share_files(pid, parent) == Some(true) {
            self.processes.share_files(pid, parent);
        }
        self.processes.add(id, process, parent);
        // The exit hook may have passed before it was watched. Otherwise it tells of the death, and a living
        // process needs no descriptor until then.
        if missed_exit {
            self.await_death(id, pidfd)?;
        }
        Ok(())
    }

    /// Adds a child that was there at that moment (boot-time nanoseconds), unless it is known.
    pub(super) fn forked(&mut self, child: u32, parent: u32, flags: u32, since: u64) {
        if let Some((known, followed)) = self.processes.at(child, since)
            && !matches!(followed.stage, Stage::Reported)
        {
            let death = Deaths::read(&self.tables).time(known);
            if death == 0 || since <= death {
                return;
            }
        }
        self.add_child(ProcessId { pid: child, since }, parent, flags);
    }

    fn add_child(&mut self, id: ProcessId, parent: u32, flags: u32) {
        let known = proc::process(id.pid, false).ok().filter(|_| self.is_still(id));
        let process = known.unwrap_or_else(|| {
            let comm = self.process_at(parent, id.since).map(|id| self.comm(id));
            Process {
                comm: comm.unwrap_or_default(),
                ..Process::unknown(id.pid)
            }
        });
        self.processes.forked(id, process, parent, flags);
    }

    /// What was read of its PID just now was this process's. A dead one may have lost its PID to another.
    pub(super) fn is_still(&self, id: ProcessId) -> bool {
        self.watched(id).is_some()
            || proc::stat(id.pid).is_ok_and(|stat| stat.is_exiting() && proc::started_ns(&stat) <= id.since)
    }

    /// The entry of a living process.
    pub(super) fn watched(&self, id: ProcessId) -> Option<Watched> {
        self.tables
            .watched(id.pid)
            .filter(|watched| watched.start <= id.since)
    }

    /// The exit hook saw the process: its death is waited for from now on.
    pub(super) fn dying(&mut self, id: ProcessId) -> Result<()> {
        let Some(followed) = self.processes.get_mut(id) else {
            return Ok(());
        };
        if !matches!(followed.stage, Stage::Alive) {
            return Ok(());
        }
        followed.stage = Stage::Dying;
        self.await_end_of(id)
    }

    /// Waits for those that there was no descriptor for until now.
    ///
    /// # Errors
    /// When a pidfd cannot be waited for.
    pub fn await_dying(&mut self) -> Result<()> {
        for id in self.processes.dying().collect::<Vec<_>>() {
            self.await_end_of(id)?;
        }
        Ok(())
    }

    /// Without a descriptor the next call tries again.
    fn await_end_of(&mut self, id: ProcessId) -> Result<()> {
        if self.processes.get(id).is_none_or(|followed| followed.awaited) {
            return Ok(());
        }
        match pidfd::open(id.pid) {
            // Whoever has the PID is not exiting, or is dead as well: the one that had it before was reaped.
            Ok(pidfd) if pidfd::has_exited(pidfd.as_fd()) => self.died(id),
            Ok(_) if proc::stat(id.pid).is_ok_and(|stat| !stat.is_exiting()) => self.died(id),
            Ok(pidfd) => self.await_death(id, pidfd)?,
            Err(PidfdError::NoSuchProcess { .. } | PidfdError::Thread { .. }) => self.died(id),
            Err(PidfdError::Io { .. }) => {}
        }
        Ok(())
    }

    /// Sends the process's id once it is dead.
    fn await_death(&mut self, id: ProcessId, pidfd: OwnedFd) -> Result<()> {
        let pidfd = wait::readable(pidfd).context("cannot wait for a pidfd")?;
        if let Some(followed) = self.processes.get_mut(id) {
            followed.awaited = true;
        }
        let deaths = self.deaths.clone();
        tokio::spawn(async move {
            let _ = pidfd.readable().await;
            // Nobody listens any more when the trace has ended.
            let _ = deaths.send(id);
        });
        Ok(())
    }

    /// The pidfd is readable: every synchronous close is done.
    pub fn died(&mut self, id: ProcessId) {
        if let Some(followed) = self.processes.get_mut(id)
            && matches!(followed.stage, Stage::Alive | Stage::Dying)
        {
            followed.stage = Stage::Dead(Instant::now());
        }
    }

    /// Finds processes and deaths whose events were lost, and processes that the exit hook missed.
    pub(super) fn find_overlooked(&mut self) -> Result<()> {
        for pid in self.tables.watched_pids() {
            if let Some(watched) = self.tables.watched(pid)
                && self.processes.within(pid, watched.start, u64::MAX).is_none()
            {
                let since = watched.start;
                self.add_child(ProcessId { pid, since }, watched.parent, watched.flags);
            }
        }
        for (key, death) in self.tables.deaths() {
            let known = self.processes.within(key.tgid, key.start, death.time);
            let id = known.map(|(id, _)| id).unwrap_or_else(|| {
                let id = ProcessId {
                    pid: key.tgid,
                    since: key.start,
                };
                self.add_child(id, death.watched.parent, death.watched.flags);
                id
            });
            self.dying(id)?;
        }
        self.find_missed_deaths();
        Ok(())
    }

    /// Living processes cost nothing while they live, so those that nothing was seen of are looked for.
    pub(super) fn find_missed_deaths(&mut self) {
        let alive = self.processes.alive();
        let unseen: Vec<_> = alive
            .filter(|(_, followed)| !followed.awaited)
            .map(|(id, _)| id)
            .collect();
        for id in unseen {
            let is_another = || proc::stat(id.pid).is_ok_and(|stat| proc::started_ns(&stat) > id.since);
            let lives = match pidfd::open(id.pid) {
                Ok(pidfd) => !pidfd::has_exited(pidfd.as_fd()) && !is_another(),
                Err(PidfdError::Io { .. }) => true,
                Err(_) => false,
            };
            if !lives {
                self.died(id);
            }
        }
    }
}
