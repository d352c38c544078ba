//! Which records of the maps belong to which process: found in one pass, and kept small.

use std::collections::HashMap;

use sockleak_core::observed::ProcessId;
use sockleak_ebpf::{FdKey, ORIGIN_INVENTORY, SocketKey, SocketRecord};

/// Processes whose sockets are looked for, each with the time of its death in boot-time nanoseconds; 0 where that is not
/// known.
pub type Dead = HashMap<ProcessId, u64>;

/// The process among these whose socket it is. `who` tells who had a PID at a moment.
pub fn owner(key: &SocketKey, dead: &Dead, who: impl Fn(u32, u64) -> Option<ProcessId>) -> Option<ProcessId> {
    let id = who(key.tgid, key.time)?;
    // After the death the PID is a stranger's.
    dead.get(&id)
        .is_some_and(|death| *death == 0 || key.time <= *death)
        .then_some(id)
}

/// The keys of the records of one process.
#[derive(Default)]
pub struct RecordKeys {
    pub id: ProcessId,
    /// When it died; 0 where that is not known.
    pub death: u64,
    /// Sockets in the maps, whoever had them.
    pub among: usize,
    /// Addresses of the sockets of its inventory, whose keys differ in nothing else.
    inventory: Vec<u64>,
    /// Those of them that another process may have too.
    shared: Vec<u64>,
    others: Vec<SocketKey>,
}

impl RecordKeys {
    pub fn of(id: ProcessId, death: u64) -> Self {
        Self {
            id,
            death,
            ..Self::default()
        }
    }

    /// Adds the key of a record of this process.
    pub fn add(&mut self, key: SocketKey, record: &SocketRecord) {
        if key == self.inventory_key(key.sk) {
            self.inventory.push(key.sk);
            if record.references == 0 || record.references > record.fd_count {
                self.shared.push(key.sk);
            }
        } else {
            self.others.push(key);
        }
    }

    /// Every key once: a record that was set aside during the pass was found twice. They were found among so many.
    pub fn settle(&mut self, among: usize) {
        self.among = among;
        self.inventory.sort_unstable();
        self.inventory.dedup();
        self.others
            .sort_unstable_by_key(|key| (key.sk, key.time, key.origin));
        self.others.dedup();
    }

    pub fn len(&self) -> usize {
        self.inventory.len() + self.others.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = SocketKey> {
        let inventory = self.inventory.iter().map(|sk| self.inventory_key(*sk));
        inventory.chain(self.others.iter().copied())
    }

    /// The place of a key in [`RecordKeys::iter`], once they are settled.
    pub fn position(&self, key: &SocketKey) -> Option<usize> {
        if *key == self.inventory_key(key.sk) {
            return self.inventory.binary_search(&key.sk).ok();
        }
        let order = |key: &SocketKey| (key.sk, key.time, key.origin);
        let found = self.others.binary_search_by_key(&order(key), order).ok()?;
        (self.others[found] == *key).then_some(self.inventory.len() + found)
    }

    /// Of its inventory those sockets that another process may have too: all of them where the fd table is shared.
    pub fn shared(&self, table_is_shared: bool) -> impl Iterator<Item = SocketKey> {
        let shared = if table_is_shared {
            &self.inventory
        } else {
            &self.shared
        };
        shared.iter().map(|sk| self.inventory_key(*sk))
    }

    /// It is the key of a further descriptor of one of its sockets.
    pub fn has_fd(&self, key: &FdKey) -> bool {
        key.tgid == self.id.pid && key.time == self.death
    }

    fn inventory_key(&self, sk: u64) -> SocketKey {
        SocketKey {
            sk,
            time: self.death,
            tgid: self.id.pid,
            origin: ORIGIN_INVENTORY,
        }
    }
}

#[cfg(test)]
mod tests {
    use sockleak_ebpf::ORIGIN_LIVE;

    use super::*;

    fn id(pid: u32, since: u64) -> ProcessId {
        ProcessId { pid, since }
    }

    #[test]
    fn keys_come_back_as_they_were_and_once() {
        let key = |sk, time, origin| SocketKey {
            sk,
            time,
            tgid: 7,
            origin,
        };
        let wanted = [
            key(1, 50, ORIGIN_INVENTORY),
            key(2, 50, ORIGIN_INVENTORY),
            key(2, 40, ORIGIN_INVENTORY),
            key(1, 30, ORIGIN_LIVE),
        ];
        let mut keys = RecordKeys::of(id(7, 40), 50);
        for key in wanted.iter().chain(&wanted).rev() {
            keys.add(*key, &SocketRecord::default());
        }
        keys.settle(wanted.len());
        let found: Vec<_> = keys.iter().collect();
        assert_eq!(found.len(), keys.len());
        assert_eq!(keys.len(), wanted.len());
        assert!(wanted.iter().all(|key| found.contains(key)));
        for (place, key) in found.iter().enumerate() {
            assert_eq!(keys.position(key), Some(place));
            let of_another = SocketKey { tgid: 8, ..*key };
            assert_eq!(keys.position(&of_another), None);
        }
    }

    #[test]
    fn what_no_other_table_refers_to_is_shared_with_the_table_only() {
        let (alone, inherited, unknown) = ((1, 2, 2), (2, 2, 1), (3, 0, 1));
        let mut keys = RecordKeys::of(id(7, 40), 50);
        for (sk, references, fd_count) in [alone, inherited, unknown] {
            let record = SocketRecord {
                references,
                fd_count,
                ..SocketRecord::default()
            };
            keys.add(keys.inventory_key(sk), &record);
        }
        let shared = |table| keys.shared(table).map(|key| key.sk).collect::<Vec<_>>();
        assert_eq!(shared(false), [2, 3]);
        assert_eq!(shared(true), [1, 2, 3]);
    }

    #[test]
    fn processes_with_the_same_pid_have_their_own() {
        let key = |tgid, time| SocketKey {
            sk: 1,
            time,
            tgid,
            origin: ORIGIN_LIVE,
        };
        let lives = [id(7, 10), id(7, 60), id(8, 5)];
        let who = |pid, time| {
            let of_pid = |life: &ProcessId| life.pid == pid && life.since <= time;
            lives.into_iter().rfind(of_pid)
        };
        let dead = Dead::from([(id(7, 10), 50), (id(8, 5), 0)]);
        let owner = |tgid, time| owner(&key(tgid, time), &dead, who);
        assert_eq!(owner(7, 50), Some(id(7, 10)));
        assert_eq!(owner(8, 99), Some(id(8, 5)));
        for (tgid, time) in [(7, 9), (7, 51), (7, 60), (9, 10)] {
            assert_eq!(owner(tgid, time), None, "{tgid} at {time}");
        }
    }
}
