//! The processes that are or were followed, and how they are related.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use sockleak_ebpf::WATCHED_SHARES_FILES;

use super::executing::Former;
use crate::kernel::proc;
use crate::postmortem::{Process, Relation};

/// How far a chain of parents is followed: a chain that was made of reused PIDs could have a loop.
const MAX_ANCESTORS: usize = 64;

/// One followed process.
pub struct Followed {
    pub process: Process,
    pub stage: Stage,
    /// The program before its last exec, while what is closed may still be that one's.
    pub former: Option<Former>,
}

/// Where a process stands.
pub enum Stage {
    Alive,
    /// The pidfd became readable at that moment; the report is due after the settle time.
    Dead(Instant),
    /// Its report was made, or it needed none.
    Reported,
}

/// Every process that was seen.
#[derive(Default)]
pub struct Processes {
    followed: HashMap<u32, Followed>,
    /// Parents of every process that was ever seen, so that a holder's origin can be told after deaths.
    parents: HashMap<u32, u32>,
    shares_files: HashMap<u32, u32>,
    /// Inodes of the sockets that each process had when it was first seen, in the order in which they were read.
    first_tables: Vec<(u32, HashSet<u64>)>,
}

impl Processes {
    /// Adds a process that was given by the user or found as a child of one.
    pub fn add(&mut self, process: Process, parent: u32) {
        self.parents.insert(process.pid, parent);
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
        let pid = process.pid;
        let followed = Followed {
            process,
            stage: Stage::Alive,
            former: None,
        };
        self.followed.insert(pid, followed);
    }

    /// Remembers what each process has open at the attach: one that has more of it later did not inherit that.
    /// A process alone has nobody to pass anything to.
    pub fn remember_tables(&mut self) {
        let mut pids: Vec<u32> = self.alive().map(|followed| followed.process.pid).collect();
        if pids.len() < 2 {
            return;
        }
        // The targets first: they are whose sockets are asked for.
        pids.sort_by_key(|pid| {
            (
                !self.get(*pid).is_some_and(|followed| followed.process.target),
                *pid,
            )
        });
        self.first_tables = pids
            .into_iter()
            .filter_map(|pid| Some((pid, proc::socket_inodes(pid).ok()?)))
            .collect();
    }

    /// A child was made with CLONE_FILES.
    pub fn share_files(&mut self, child: u32, parent: u32) {
        self.shares_files.insert(child, parent);
    }

    /// Adds a child at its fork.
    pub fn forked(&mut self, child: u32, parent: u32, flags: u32) {
        if flags & WATCHED_SHARES_FILES != 0 {
            self.share_files(child, parent);
        }
        let process = proc::process(child, false).unwrap_or_else(|_| {
            let comm = self.followed.get(&parent).map(|known| known.process.comm.clone());
            Process {
                pid: child,
                ns_pid: None,
                comm: comm.unwrap_or_default(),
                exe: None,
                cgroup: None,
                started: None,
                target: false,
            }
        });
        self.add(process, parent);
    }

    /// Forgets what a dead process had at the attach: its number may come to mean another one.
    pub fn forget_table(&mut self, pid: u32) {
        self.first_tables.retain(|(known, _)| *known != pid);
    }

    /// Forgets a child after its report, so that a process that forks for ever costs nothing. Its own
    /// children become its parent's, which keeps the family together.
    pub fn forget(&mut self, pid: u32) {
        let parent = self.parents.remove(&pid).unwrap_or_default();
        for known in self.parents.values_mut().filter(|known| **known == pid) {
            *known = parent;
        }
        self.followed.remove(&pid);
        self.shares_files.remove(&pid);
    }

    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Followed> {
        self.followed.get(&pid)
    }

    pub fn get_mut(&mut self, pid: u32) -> Option<&mut Followed> {
        self.followed.get_mut(&pid)
    }

    /// Processes whose reports are due or may become so.
    pub fn dead(&self) -> impl Iterator<Item = (u32, Instant)> {
        self.followed
            .iter()
            .filter_map(|(pid, followed)| match followed.stage {
                Stage::Dead(since) => Some((*pid, since)),
                Stage::Alive | Stage::Reported => None,
            })
    }

    pub fn alive(&self) -> impl Iterator<Item = &Followed> {
        self.followed
            .values()
            .filter(|followed| matches!(followed.stage, Stage::Alive))
    }

    /// Nothing is alive and nothing waits for its report.
    #[must_use]
    pub fn all_reported(&self) -> bool {
        self.followed
            .values()
            .all(|followed| matches!(followed.stage, Stage::Reported))
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
        let related = of_dead.contains(&holder)
            || of_holder.contains(&dead)
            || of_dead
                .iter()
                .any(|ancestor| of_holder.contains(ancestor) && self.followed.contains_key(ancestor));
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
