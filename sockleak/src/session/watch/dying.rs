//! Deaths: from the event of the exit hook until every synchronous close is done.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use anyhow::{Context as _, Result};
use sockleak_core::observed::ProcessId;
use sockleak_kernel::pidfd::{self, PidfdError};
use sockleak_kernel::{proc, wait};

use super::Watch;
use crate::session::processes::Lifecycle;

impl Watch {
    /// The exit hook saw the process: its death is waited for from now on.
    pub(super) fn dying(&mut self, id: ProcessId) -> Result<()> {
        let Some(watched) = self.processes.get_mut(id) else {
            return Ok(());
        };
        if !matches!(watched.lifecycle, Lifecycle::Alive) {
            return Ok(());
        }
        watched.lifecycle = Lifecycle::Dying;
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
        if self.processes.get(id).is_none_or(|watched| watched.awaited) {
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
    pub(super) fn await_death(&mut self, id: ProcessId, pidfd: OwnedFd) -> Result<()> {
        let pidfd = wait::readable(pidfd).context("cannot wait for a pidfd")?;
        if let Some(watched) = self.processes.get_mut(id) {
            watched.awaited = true;
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
        if let Some(watched) = self.processes.get_mut(id)
            && matches!(watched.lifecycle, Lifecycle::Alive | Lifecycle::Dying)
        {
            watched.lifecycle = Lifecycle::Dead(Instant::now());
        }
    }

    /// Finds processes and deaths whose events were lost, and processes that the exit hook missed. The children that were
    /// not known until now, each with its parent.
    pub fn find_overlooked(&mut self) -> Result<Vec<(u32, u32)>> {
        let watched = self.inventory.watched_pids().into_iter().filter_map(|pid| {
            let entry = self.inventory.watched(pid)?;
            let since = entry.start;
            Some((
                ProcessId { pid, since },
                u64::MAX,
                entry.parent,
                entry.shares_files,
            ))
        });
        let deaths = self.inventory.deaths();
        let dead = deaths.iter().map(|death| {
            let (pid, since) = (death.pid, death.start);
            let entry = &death.watched;
            (
                ProcessId { pid, since },
                death.time,
                entry.parent,
                entry.shares_files,
            )
        });
        let mut seen: Vec<_> = watched.chain(dead).collect();
        // A child is what its parent is, which has to be known before.
        seen.sort_by_key(|(id, ..)| id.since);
        let mut found = Vec::new();
        for (id, until, parent, shares_files) in seen {
            if self.processes.within(id.pid, id.since, until).is_none() {
                self.add_child(id, parent, shares_files);
                found.push((id.pid, parent));
            }
        }
        for death in deaths.iter() {
            if let Some((id, _)) = self.processes.within(death.pid, death.start, death.time) {
                self.dying(id)?;
            }
        }
        self.find_missed_deaths();
        Ok(found)
    }

    /// Living processes cost nothing while they live, so those that nothing was seen of are looked for.
    pub fn find_missed_deaths(&mut self) {
        let alive = self.processes.alive();
        let unseen: Vec<_> = alive
            .filter(|(_, watched)| !watched.awaited)
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
