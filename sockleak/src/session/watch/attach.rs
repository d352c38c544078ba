//! The attach: the targets, and the descendants that they have already.

use std::collections::HashSet;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use sockleak_core::observed::ProcessId;
use sockleak_kernel::inventory::MapsError;
use sockleak_kernel::{clock, proc};

use super::Watch;
use crate::session::target::Target;

impl Watch {
    /// Watches the targets from now on, and their descendants if these are wanted.
    ///
    /// # Errors
    /// When one died meanwhile, or the map is full.
    pub fn attach(&mut self, targets: Vec<Target>, descendants: bool) -> Result<()> {
        let pids: Vec<u32> = targets.iter().map(|target| target.process.pid).collect();
        for target in targets {
            self.attach_target(target)?;
        }
        // One target may descend from another.
        for pid in pids.into_iter().filter(|_| descendants) {
            self.attach_descendants(pid)?;
        }
        self.processes.remember_tables();
        Ok(())
    }

    fn attach_target(&mut self, target: Target) -> Result<()> {
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
    fn watch(&mut self, pid: u32, parent: u32) -> Result<ProcessId, MapsError> {
        let now = clock::boottime_ns();
        let since = match self.inventory.watched(pid) {
            Some(watched) => watched.start,
            None => {
                self.inventory.watch(pid, parent)?;
                now
            }
        };
        Ok(ProcessId { pid, since })
    }

    /// Children that were alive before the attach. The hooks catch those that are forked from a watched
    /// process, so the search ends when it finds nobody new.
    fn attach_descendants(&mut self, pid: u32) -> Result<()> {
        let mut tried = HashSet::new();
        loop {
            let new: Vec<u32> = proc::descendants(pid)
                .context("cannot read /proc")?
                .into_iter()
                // Whom the hook of its fork watches is added by the event of that.
                .filter(|child| self.inventory.watched(*child).is_none() && tried.insert(*child))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for child in new {
                self.attach_descendant(child)?;
            }
        }
    }

    /// A zombie is not watched: it holds nothing any more.
    fn attach_descendant(&mut self, pid: u32) -> Result<()> {
        let Ok(found) = Target::find(pid, false) else {
            let holds_nothing = match proc::stat(pid) {
                Ok(stat) => stat.holds_nothing(),
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
            self.unwatched += u64::from(!holds_nothing);
            return Ok(());
        };
        let Ok(id) = self.watch(pid, found.parent) else {
            self.unwatched += 1;
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
}
