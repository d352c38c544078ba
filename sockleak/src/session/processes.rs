//! The processes that are watched, and how they are related.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use sockleak_core::observed::{Process, ProcessId, Relation};
use sockleak_kernel::proc;

use super::exec::Former;

/// How far a chain of parents is followed: a chain that was made of reused PIDs could have a loop.
const MAX_ANCESTORS: usize = 64;

/// One watched process.
pub struct WatchedProcess {
    pub process: Process,
    /// What /proc tells of it was read, since its fork or its last exec.
    pub is_read: bool,
    pub lifecycle: Lifecycle,
    /// The program before its last exec, while what is closed may still be that one's.
    pub former: Option<Former>,
    /// It closed or shut down something itself while it was watched.
    pub closed_alive: bool,
    /// Its pidfd is waited for.
    pub awaited: bool,
}

/// Where a process stands.
pub enum Lifecycle {
    Alive,
    /// The exit hook saw it; its sockets are being closed.
    Dying,
    /// The pidfd became readable at that moment; the report is due after the settle time.
    Dead(Instant),
    /// Its report was made, or it needed none.
    Reported,
}

/// Every process that was seen.
#[derive(Default)]
pub struct Processes {
    watched: BTreeMap<ProcessId, WatchedProcess>,
    /// Parents of every process that was ever seen, so that a holder's origin can be told after deaths.
    parents: HashMap<u32, u32>,
    shares_files: HashMap<u32, u32>,
    /// Inodes of the sockets that each process had when it was first seen, in the order in which they were read.
    first_tables: Vec<(u32, HashSet<u64>)>,
}

impl Processes {
    /// Adds a process that was given by the user or found as a child of one.
    pub fn add(&mut self, id: ProcessId, process: Process, parent: u32) {
        self.parents.insert(id.pid, parent);
        let mut ancestor = parent;
        for _ in 0..MAX_ANCESTORS {
            if ancestor <= 1 || self.parents.contains_key(&ancestor) {
                break;
            }
            let Some(next) = parent_of(ancestor) else {
                break;
            };
            self.parents.insert(ancestor, next);
            ancestor = next;
        }
        let watched = WatchedProcess {
            process,
            is_read: true,
            lifecycle: Lifecycle::Alive,
            former: None,
            closed_alive: false,
            awaited: false,
        };
        self.watched.insert(id, watched);
    }

    /// Remembers what each process has open at the attach: one that has more of it later did not inherit that.
    /// A process alone has nobody to pass anything to.
    pub fn remember_tables(&mut self) {
        let mut pids: Vec<(bool, u32)> = self
            .alive()
            .map(|(id, watched)| (!watched.process.target, id.pid))
            .collect();
        if pids.len() < 2 {
            return;
        }
        // The targets first: they are whose sockets are asked for.
        pids.sort_unstable();
        self.first_tables = pids
            .into_iter()
            .filter_map(|(_, pid)| Some((pid, proc::socket_inodes(pid).ok()?)))
            .collect();
    }

    /// A child was made with CLONE_FILES.
    pub fn share_files(&mut self, child: u32, parent: u32) {
        self.shares_files.insert(child, parent);
    }

    /// Adds a child at its fork.
    pub fn forked(&mut self, child: ProcessId, process: Process, parent: u32, shares_files: bool) {
        // What is known under its number is a dead one's.
        self.forget_table(child.pid);
        self.shares_files.remove(&child.pid);
        if shares_files {
            self.share_files(child.pid, parent);
        }
        self.add(child, process, parent);
        if let Some(watched) = self.watched.get_mut(&child) {
            watched.is_read = false;
        }
    }

    /// Forgets what a dead process had at the attach: its number may come to mean another one.
    pub fn forget_table(&mut self, pid: u32) {
        self.first_tables.retain(|(known, _)| *known != pid);
    }

    /// Forgets a child after its report, so that a process that forks for ever costs nothing. Its own
    /// children become its parent's, which keeps the family together.
    pub fn forget(&mut self, id: ProcessId) {
        self.watched.remove(&id);
        // Another process that has the number by now is a child of its own parent.
        if self.at(id.pid, u64::MAX).is_some() {
            return;
        }
        let parent = self.parents.remove(&id.pid).unwrap_or_default();
        for known in self.parents.values_mut().filter(|known| **known == id.pid) {
            *known = parent;
        }
        self.shares_files.remove(&id.pid);
    }

    #[must_use]
    pub fn get(&self, id: ProcessId) -> Option<&WatchedProcess> {
        self.watched.get(&id)
    }

    pub fn get_mut(&mut self, id: ProcessId) -> Option<&mut WatchedProcess> {
        self.watched.get_mut(&id)
    }

    /// The process that has that PID since `time` (boot-time nanoseconds) or longer.
    #[must_use]
    pub fn at(&self, pid: u32, time: u64) -> Option<(ProcessId, &WatchedProcess)> {
        self.within(pid, 0, time)
    }

    /// The last process with that PID whose [`ProcessId::since`] lies between these moments.
    #[must_use]
    pub fn within(&self, pid: u32, from: u64, to: u64) -> Option<(ProcessId, &WatchedProcess)> {
        let key = |since| ProcessId { pid, since };
        let (id, watched) = self.watched.range(key(from)..=key(to)).next_back()?;
        Some((*id, watched))
    }

    /// Processes whose reports are due or may become so.
    pub fn dead(&self) -> impl Iterator<Item = (ProcessId, Instant)> {
        self.watched
            .iter()
            .filter_map(|(id, watched)| match watched.lifecycle {
                Lifecycle::Dead(since) => Some((*id, since)),
                Lifecycle::Alive | Lifecycle::Dying | Lifecycle::Reported => None,
            })
    }

    /// Processes whose sockets are being closed.
    pub fn dying(&self) -> impl Iterator<Item = ProcessId> {
        self.watched
            .iter()
            .filter(|(_, watched)| matches!(watched.lifecycle, Lifecycle::Dying))
            .map(|(id, _)| *id)
    }

    pub fn alive(&self) -> impl Iterator<Item = (ProcessId, &WatchedProcess)> {
        self.watched
            .iter()
            .filter(|(_, watched)| matches!(watched.lifecycle, Lifecycle::Alive))
            .map(|(id, watched)| (*id, watched))
    }

    /// Those that live and that nothing was read of in /proc.
    pub fn unread(&self) -> impl Iterator<Item = ProcessId> {
        self.alive()
            .filter(|(_, watched)| !watched.is_read)
            .map(|(id, _)| id)
    }

    /// The parent of a watched process; 0 where it is not known.
    #[must_use]
    pub fn parent(&self, pid: u32) -> u32 {
        self.parents.get(&pid).copied().unwrap_or(0)
    }

    /// Nothing is alive and nothing waits for its report.
    #[must_use]
    pub fn all_reported(&self) -> bool {
        self.watched
            .values()
            .all(|watched| matches!(watched.lifecycle, Lifecycle::Reported))
    }

    /// Every target is dead and reported.
    #[must_use]
    pub fn targets_reported(&self) -> bool {
        self.watched
            .values()
            .filter(|watched| watched.process.target)
            .all(|watched| matches!(watched.lifecycle, Lifecycle::Reported))
    }

    /// How `holder` came by that socket of the dead process, as far as it was seen.
    #[must_use]
    pub fn relation(&self, dead: u32, holder: u32, inode: u64) -> Relation {
        if self.shares_files.get(&holder) == Some(&dead) || self.shares_files.get(&dead) == Some(&holder) {
            return Relation::SharedTable;
        }
        let first = |pid| {
            let mut tables = self.first_tables.iter().enumerate();
            tables.find_map(|(place, (known, inodes))| {
                (*known == pid).then_some((place, inodes.contains(&inode)))
            })
        };
        let came_later = matches!(first(holder), Some((_, false)));
        if came_later
            && let (Some((dead_read, true)), Some((holder_read, _))) = (first(dead), first(holder))
            && dead_read < holder_read
        {
            return Relation::Received;
        }
        let of_dead = self.ancestors(dead);
        // A parent may have opened it later and forked the dead process then.
        if came_later && !of_dead.contains(&holder) {
            return Relation::Unknown;
        }
        let of_holder = self.ancestors(holder);
        let is_known = |pid: u32| self.at(pid, u64::MAX).is_some();
        let related = of_dead.contains(&holder)
            || of_holder.contains(&dead)
            || of_dead
                .iter()
                .any(|ancestor| of_holder.contains(ancestor) && is_known(*ancestor));
        if related {
            Relation::Family
        } else {
            Relation::Unknown
        }
    }

    fn ancestors(&self, pid: u32) -> Vec<u32> {
        let mut ancestors = Vec::new();
        let mut current = pid;
        while ancestors.len() < MAX_ANCESTORS {
            let parent = self.parents.get(&current).copied().or_else(|| parent_of(current));
            match parent {
                Some(parent) if parent > 1 => ancestors.push(parent),
                _ => break,
            }
            current = ancestors[ancestors.len() - 1];
        }
        ancestors
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    proc::stat(pid).ok().map(|stat| stat.parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32, since: u64) -> ProcessId {
        ProcessId { pid, since }
    }

    #[test]
    fn processes_with_one_pid_are_told_apart_by_time() {
        let mut processes = Processes::default();
        for since in [10, 20] {
            processes.add(id(7, since), Process::unknown(7), 1);
        }
        processes.add(id(8, 5), Process::unknown(8), 1);
        let at = |time| processes.at(7, time).map(|(id, _)| id.since);
        assert_eq!(
            [at(9), at(10), at(19), at(20)],
            [None, Some(10), Some(10), Some(20)]
        );
        let within = |from, to| processes.within(7, from, to).map(|(id, _)| id.since);
        assert_eq!([within(11, 19), within(11, 20)], [None, Some(20)]);
    }

    #[test]
    fn the_parent_of_a_second_process_outlives_the_first() {
        let mut processes = Processes::default();
        // Numbers that no process can have.
        let (family, child) = (u32::MAX, u32::MAX - 1);
        processes.add(id(child, 10), Process::unknown(child), family);
        processes.add(id(child, 20), Process::unknown(child), family);
        processes.forget(id(child, 10));
        assert_eq!(processes.ancestors(child), [family]);
        processes.forget(id(child, 20));
        assert!(processes.ancestors(child).is_empty());
        assert!(processes.at(child, u64::MAX).is_none());
    }
}
