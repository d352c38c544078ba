//! Whom the trace watches: targets, descendants that were there before, and children from their fork to their death.

mod attach;
mod dying;

use anyhow::Result;
use sockleak_core::observed::{
    Observation, OpenSockets, Process, ProcessChange, ProcessEvent, ProcessId, SocketTransition, State,
    WatchedProcess,
};
use sockleak_kernel::inventory::{Change, Deaths, Event, Inventory, SocketChange, Watched};
use sockleak_kernel::proc;
use tokio::sync::mpsc::UnboundedSender;

use super::exec::Former;
use super::namespaces::Namespaces;
use super::open_sockets;
use super::processes::{Lifecycle, Processes};

/// The watched processes, and what is kept of them while they live and until they are reported.
pub struct Watch {
    inventory: Inventory,
    processes: Processes,
    namespaces: Namespaces,
    /// Gets whoever is dead.
    deaths: UnboundedSender<ProcessId>,
    /// Descendants that could not be watched.
    unwatched: u64,
}

impl Watch {
    pub fn new(inventory: Inventory, deaths: UnboundedSender<ProcessId>) -> Self {
        Self {
            inventory,
            processes: Processes::default(),
            namespaces: Namespaces::default(),
            deaths,
            unwatched: 0,
        }
    }

    pub const fn processes(&self) -> &Processes {
        &self.processes
    }

    pub const fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    pub const fn inventory_mut(&mut self) -> &mut Inventory {
        &mut self.inventory
    }

    /// What a look at the sockets of the dead needs, all at once.
    pub const fn parts(&mut self) -> (&Inventory, &Processes, &mut Namespaces) {
        (&self.inventory, &self.processes, &mut self.namespaces)
    }

    /// Processes that are not watched and should be: descendants, and children that the fork hook had no room for.
    pub fn unwatched(&self) -> u64 {
        self.unwatched + self.inventory.counters().process_failed
    }

    /// Those that are watched and alive, the targets first.
    pub fn watched(&self) -> Vec<WatchedProcess> {
        let alive = self.processes.alive();
        let mut watched: Vec<WatchedProcess> = alive
            .map(|(id, watched)| WatchedProcess {
                pid: id.pid,
                parent: self.processes.parent(id.pid),
                comm: watched.process.comm.clone(),
                target: watched.process.target,
            })
            .collect();
        watched.sort_by_key(|process| !process.target);
        watched
    }

    /// Counts what the targets have open. Looking also makes a cookie for every socket there, which its time-wait mini
    /// socket will inherit.
    ///
    /// # Errors
    /// When sock_diag is missing or broken.
    pub fn count_sockets(&mut self) -> Result<Option<OpenSockets>> {
        let alive = self.processes.alive();
        let targets = alive.filter(|(_, watched)| watched.process.target);
        let ids: Vec<ProcessId> = targets.map(|(id, _)| id).collect();
        Ok(open_sockets::count(&ids, &mut self.namespaces)?)
    }

    /// What an event of the programs means.
    ///
    /// # Errors
    /// When a pidfd cannot be waited for, or sock_diag is missing or broken.
    pub fn take(&mut self, event: Event) -> Result<Option<Observation>> {
        let id = self.processes.at(event.pid, event.boottime).map(|(id, _)| id);
        let observed = match event.what {
            Change::Forked { child, shares_files } => {
                let is_new = self.forked(child, event.pid, shares_files, event.boottime);
                is_new.then(|| {
                    let comm = id.map(|id| self.comm(id)).unwrap_or_default();
                    (comm, ProcessChange::Forked { child })
                })
            }
            Change::Executed { comm } => match id {
                Some(id) => {
                    self.executed(id, &comm, event.boottime);
                    Some((comm, ProcessChange::Executed))
                }
                None => None,
            },
            Change::Exiting => {
                if let Some(id) = id {
                    self.dying(id)?;
                }
                None
            }
            Change::Socket(change) => {
                return match id {
                    Some(id) => self.acted(id, &event, change),
                    None => Ok(None),
                };
            }
        };
        Ok(observed.map(|(comm, change)| {
            Observation::Process(ProcessEvent {
                time: event.time,
                pid: event.pid,
                comm,
                change,
            })
        }))
    }

    /// A living process listened, connected, or closed a socket.
    fn acted(&mut self, id: ProcessId, event: &Event, change: SocketChange) -> Result<Option<Observation>> {
        self.read_details(id);
        self.namespaces.sighted(id, change.netns);
        let closes = !matches!(change.to, State::Listen | State::SynSent);
        if let Some(watched) = self.processes.get_mut(id) {
            watched.closed_alive |= closes;
            if !closes {
                watched.former = None;
            }
        }
        if !closes {
            return Ok(None);
        }
        let comm = self.owner(id, event.boottime)?;
        Ok(Some(Observation::Transition(SocketTransition {
            time: event.time,
            pid: event.pid,
            comm,
            local: change.local,
            remote: change.remote,
            from: change.from,
            to: change.to,
        })))
    }

    /// Adds a child that was there at that moment (boot-time nanoseconds), unless it is known. Whether it was not.
    fn forked(&mut self, child: u32, parent: u32, shares_files: bool, since: u64) -> bool {
        if let Some((known, watched)) = self.processes.at(child, since)
            && !matches!(watched.lifecycle, Lifecycle::Reported)
        {
            let death = self.inventory.deaths().time(known);
            if death == 0 || since <= death {
                return false;
            }
        }
        self.add_child(ProcessId { pid: child, since }, parent, shares_files);
        true
    }

    /// A child is what its parent was, until it executes another program. Of most children nothing else is ever asked.
    fn add_child(&mut self, id: ProcessId, parent: u32, shares_files: bool) {
        let parent_then = self.processes.at(parent, id.since);
        let process = parent_then.map_or_else(
            || Process::unknown(id.pid),
            |(_, parent)| Process {
                comm: parent.process.comm.clone(),
                exe: parent.process.exe.clone(),
                cgroup: parent.process.cgroup.clone(),
                ..Process::unknown(id.pid)
            },
        );
        self.processes.forked(id, process, parent, shares_files);
    }

    /// A process became another program.
    fn executed(&mut self, id: ProcessId, comm: &str, time: u64) {
        let Some(watched) = self.processes.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut watched.process.comm, comm.to_owned());
        watched.former = Some(Former::new(before, time));
        watched.process.exe = None;
        watched.is_read = false;
        if watched.process.target {
            self.read_details(id);
        }
    }

    /// Reads what /proc tells of a process, unless it was read since its fork or its exec.
    fn read_details(&mut self, id: ProcessId) {
        if self.processes.get(id).is_none_or(|watched| watched.is_read) {
            return;
        }
        let read = proc::process(id.pid, false);
        // A dead one may have lost its PID to another.
        let is_its_own = self.is_still(id);
        let Some(watched) = self.processes.get_mut(id) else {
            return;
        };
        watched.is_read = true;
        if let Ok(read) = read
            && is_its_own
        {
            let known = &mut watched.process;
            *known = Process {
                // /proc may tell the name of a later program already.
                comm: std::mem::take(&mut known.comm),
                target: known.target,
                ..read
            };
        }
    }

    /// Reads what /proc tells of those that have lived for a while. Short-lived children are never read of.
    pub fn read_unread(&mut self) {
        for id in self.processes.unread().collect::<Vec<_>>() {
            self.read_details(id);
        }
    }

    /// The name of the program that a socket belonged to which the process closed at that moment.
    ///
    /// What an exec closes comes under the new name. It is told under the old one if the new program got no
    /// socket from it: then there is nothing else that could be closed at once.
    fn owner(&mut self, id: ProcessId, time: u64) -> Result<String> {
        if let Some(watched) = self.processes.get_mut(id)
            && let Some(mut former) = watched.former.take()
            && let Some(comm) = former.closes(time).map(str::to_owned)
            && (former.left_nothing || self.has_no_connection(id)?)
            && let Some(watched) = self.processes.get_mut(id)
        {
            former.left_nothing = true;
            watched.former = Some(former);
            return Ok(comm);
        }
        Ok(self.comm(id))
    }

    fn has_no_connection(&mut self, id: ProcessId) -> Result<bool> {
        // The table of a process that is dead says nothing: it is empty.
        let Ok(inodes) = proc::socket_inodes(id.pid) else {
            return Ok(false);
        };
        if inodes.is_empty() {
            return Ok(proc::stat(id.pid).is_ok_and(|stat| !stat.is_zombie()));
        }
        Ok(open_sockets::count(&[id], &mut self.namespaces)? == Some(OpenSockets::default()))
    }

    /// The `comm` of a watched process, by the PID that it has now.
    pub fn comm_of(&self, pid: u32) -> String {
        let id = self.processes.at(pid, u64::MAX).map(|(id, _)| id);
        id.map(|id| self.comm(id)).unwrap_or_default()
    }

    fn comm(&self, id: ProcessId) -> String {
        let watched = self.processes.get(id);
        watched.map_or_else(String::new, |watched| watched.process.comm.clone())
    }

    /// What was read of its PID just now was this process's.
    fn is_still(&self, id: ProcessId) -> bool {
        self.entry(id).is_some()
            || proc::stat(id.pid).is_ok_and(|stat| stat.is_exiting() && proc::started_ns(&stat) <= id.since)
    }

    /// The entry of a process while it lives.
    pub fn entry(&self, id: ProcessId) -> Option<Watched> {
        self.inventory
            .watched(id.pid)
            .filter(|watched| watched.start <= id.since)
    }

    /// Forgets a process whose report was made, or that needed none: its death and its namespaces go.
    pub fn forget(&mut self, id: ProcessId, deaths: &Deaths) {
        match deaths.of(id) {
            Some(death) => self.inventory.forget_death(death),
            // Unless it is another process by now.
            None if self.entry(id).is_some() => self.inventory.unwatch(id.pid),
            None => {}
        }
        self.namespaces.leave(id);
        let last = self.processes.at(id.pid, u64::MAX);
        if last.is_some_and(|(last, _)| last == id) {
            self.processes.forget_table(id.pid);
        }
        match self.processes.get_mut(id) {
            Some(watched) if watched.process.target => watched.lifecycle = Lifecycle::Reported,
            _ => self.processes.forget(id),
        }
    }
}
