//! Which watched processes descend from each other.

use std::collections::{HashMap, HashSet};

/// The living watched processes by family. Whoever dies is removed, so that it grows with the living only.
#[derive(Default)]
pub struct Families {
    /// The main process of each one's family.
    main: HashMap<u32, u32>,
    members: HashMap<u32, HashSet<u32>>,
}

impl Families {
    /// Adds a process to the family of its parent, or as the main process of one of its own.
    pub fn add(&mut self, pid: u32, parent: u32) {
        // Another process with this PID may have died without a word.
        self.remove(pid);
        let main = self.main.get(&parent).copied().unwrap_or(pid);
        self.main.insert(pid, main);
        self.members.entry(main).or_default().insert(pid);
    }

    /// Removes one that is dead.
    pub fn remove(&mut self, pid: u32) {
        let Some(main) = self.main.remove(&pid) else {
            return;
        };
        if let Some(members) = self.members.get_mut(&main) {
            members.remove(&pid);
            if members.is_empty() {
                self.members.remove(&main);
            }
        }
    }

    /// The main process of its family; it is one by itself where nothing is known of it.
    pub fn main_of(&self, pid: u32) -> u32 {
        self.main.get(&pid).copied().unwrap_or(pid)
    }

    /// Nobody else of its family lives.
    pub fn is_alone(&self, pid: u32) -> bool {
        let members = self.members.get(&self.main_of(pid));
        members.is_none_or(|members| members.iter().all(|member| *member == pid))
    }

    /// Somebody of the family lives.
    pub fn has_members(&self, main: u32) -> bool {
        self.members.contains_key(&main)
    }
}
