//! Network namespaces that are open because a followed process has sockets in them.
//!
//! An open namespace keeps its TIME_WAITs alive, so each one ends with the last process that needed it.

use std::collections::{HashMap, HashSet};

use sockleak_core::observed::{Overflow, ProcessId};
use sockleak_kernel::netns::Netns;
use sockleak_kernel::time_wait::TimeWaitTable;

#[derive(Default)]
pub struct Namespaces {
    open: HashMap<u32, Opened>,
    users: HashMap<ProcessId, HashSet<u32>>,
    /// Those that may be there and may not be looked into, and why.
    refused: HashMap<u32, String>,
}

impl Namespaces {
    /// Opens the namespace that a living process is in now.
    pub fn enter(&mut self, id: ProcessId) {
        if let Ok(namespace) = Netns::of_process(id.pid) {
            self.users.entry(id).or_default().insert(namespace.inode());
            self.open
                .entry(namespace.inode())
                .or_insert_with(|| Opened::now(namespace));
        }
    }

    /// A process has a socket in that namespace. `/proc` is only asked for one that was not seen before.
    pub fn sighted(&mut self, id: ProcessId, inode: u32) {
        if inode == 0 || self.users.get(&id).is_some_and(|used| used.contains(&inode)) {
            return;
        }
        self.find(id.pid, inode);
        self.users.entry(id).or_default().insert(inode);
    }

    /// The namespace, if it could be opened while it was there or still can be found.
    pub fn get(&mut self, pid: u32, inode: u32) -> Option<&Netns> {
        self.find(pid, inode);
        self.opened(inode)
    }

    /// Why a namespace may not be looked into that may be there.
    pub fn refused(&self, inode: u32) -> Option<&String> {
        self.refused.get(&inode)
    }

    /// The namespaces that a process is known to use.
    pub fn of(&self, id: ProcessId) -> Vec<u32> {
        self.users.get(&id).into_iter().flatten().copied().collect()
    }

    /// A namespace that is open.
    pub fn opened(&self, inode: u32) -> Option<&Netns> {
        self.open.get(&inode).map(|opened| &opened.namespace)
    }

    /// How often the namespace had no room for a TIME_WAIT since it was opened.
    pub fn overflow(&self, inode: u32) -> Option<Overflow> {
        let opened = self.open.get(&inode)?;
        let table = TimeWaitTable::read(&opened.namespace).ok()?;
        Some(Overflow {
            count: table.overflows.checked_sub(opened.overflows?)?,
            is_full: table.is_full,
        })
    }

    /// The process needs its namespaces no more.
    pub fn leave(&mut self, id: ProcessId) {
        self.users.remove(&id);
        let users = &self.users;
        self.open
            .retain(|inode, _| users.values().any(|used| used.contains(inode)));
        self.refused
            .retain(|inode, _| users.values().any(|used| used.contains(inode)));
    }

    fn find(&mut self, pid: u32, inode: u32) {
        if self.open.contains_key(&inode) {
            return;
        }
        let own = Netns::of_process(pid).ok();
        let found = match own.filter(|namespace| namespace.inode() == inode) {
            Some(own) => Ok(Some(own)),
            None => Netns::find(inode),
        };
        match found {
            Ok(found) => {
                self.refused.remove(&inode);
                if let Some(namespace) = found {
                    self.open.insert(inode, Opened::now(namespace));
                }
            }
            Err(error) => {
                self.refused.insert(inode, error.to_string());
            }
        }
    }
}

struct Opened {
    namespace: Netns,
    /// [`TimeWaitTable::overflows`] at that moment.
    overflows: Option<u64>,
}

impl Opened {
    fn now(namespace: Netns) -> Self {
        let table = TimeWaitTable::read(&namespace);
        Self {
            overflows: table.ok().map(|table| table.overflows),
            namespace,
        }
    }
}
