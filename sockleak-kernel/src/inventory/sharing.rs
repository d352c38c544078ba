//! Which record has the changes of a socket that several processes had.

use std::collections::{HashMap, HashSet};

use sockleak_ebpf::{ORIGIN_LIVE, STATE_CHANGES, SocketKey, SocketRecord, StateChange};

use super::maps::{Maps, MapsError};

/// Records of inventories that were reported and forgotten, by `sk`: a process that shared a socket may have
/// died before the one that is reported already, and only the record of the first death has the changes.
#[derive(Default)]
pub struct Reported(HashMap<u64, (SocketKey, SocketRecord)>);

impl Reported {
    /// Keeps those of these records that have changes.
    pub fn keep(&mut self, maps: &Maps, keys: impl Iterator<Item = SocketKey>) {
        for key in keys {
            if let Some(record) = maps.socket(&key).filter(|record| record.change_count > 0) {
                self.0.insert(key.sk, (key, record));
            }
        }
    }

    /// Nobody is left who may need them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Records with changes whose place another record has.
pub struct Aside {
    by_sk: HashMap<u64, Vec<(SocketKey, SocketRecord)>>,
    /// How many were set aside before these were read.
    count: u64,
}

impl Aside {
    /// Reads those of these sockets.
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn read(maps: &Maps, sockets: &HashSet<u64>) -> Result<Self, MapsError> {
        let count = maps.set_aside_until_now();
        let mut by_sk: HashMap<u64, Vec<_>> = HashMap::new();
        if !sockets.is_empty() {
            for (key, record) in maps.aside(|key| sockets.contains(&key.sk))? {
                if record.change_count > 0 {
                    by_sk.entry(key.sk).or_default().push((key, record));
                }
            }
        }
        Ok(Self { by_sk, count })
    }

    fn of(&self, sk: u64) -> &[(SocketKey, SocketRecord)] {
        self.by_sk.get(&sk).map_or(&[], Vec::as_slice)
    }
}

/// Where the changes of a socket's state may be that its own record does not have.
#[derive(Clone, Copy)]
pub struct Sharers<'a> {
    pub maps: &'a Maps,
    pub reported: &'a Reported,
    pub aside: &'a Aside,
}

impl Sharers<'_> {
    /// The changes of a socket's state go to the record that came first: that of another process which shares the
    /// socket and died with this one, or that of the living process which had shut it down. What they tell of the time
    /// since the death is true of this record too. False if a lender may have been overlooked.
    pub fn complete(&self, key: &SocketKey, record: &mut SocketRecord) -> bool {
        let mut lenders: Vec<_> = self.maps.followed(key.sk).into_iter().collect();
        lenders.extend(self.reported.0.get(&key.sk));
        lenders.extend(self.aside.of(key.sk));
        // One that was set aside after the others were read, and before it was looked up in its place, was in neither.
        borrow_from(&lenders, key, record) || self.maps.set_aside_until_now() == self.aside.count
    }

    /// Lends to those whose lenders may have been overlooked, with the records that were set aside until now.
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn complete_late(&self, records: &mut [(SocketKey, SocketRecord)]) -> Result<(), MapsError> {
        if records.is_empty() {
            return Ok(());
        }
        let sockets = records.iter().map(|(key, _)| key.sk).collect();
        let aside = &Aside::read(self.maps, &sockets)?;
        for (key, record) in records {
            Sharers { aside, ..*self }.complete(key, record);
        }
        Ok(())
    }
}

/// Of two lenders the one in the map may have taken the place of the other when that was forgotten, and then it has
/// only what came later.
fn borrow_from(lenders: &[(SocketKey, SocketRecord)], key: &SocketKey, record: &mut SocketRecord) -> bool {
    let lent = lenders.iter().find_map(|(other, lender)| {
        let is_next =
            |change: &StateChange| other.time + change.after() >= key.time && change.from() == record.state;
        let is_same = (lender.inode, lender.msk) == (record.inode, record.msk);
        // What is followed since the death is another socket in the same memory.
        let is_of_before = other.origin == ORIGIN_LIVE && other.time < key.time;
        let lends = other != key && (is_same || is_of_before);
        let known = usize::from(lender.change_count).min(STATE_CHANGES);
        let first = lender.changes[..known].iter().position(is_next)?;
        lends.then_some((other, lender, first, known))
    });
    let Some((other, lender, first, known)) = lent else {
        return false;
    };
    record.cookie = lender.cookie;
    record.changes = [StateChange::default(); STATE_CHANGES];
    for (own, change) in record.changes.iter_mut().zip(&lender.changes[first..known]) {
        *own = StateChange::new(other.time + change.after() - key.time, change.from(), change.to());
    }
    record.change_count = lender.change_count - first as u8;
    record.reset_sent = lender.reset_sent;
    record.reset_reason = lender.reset_reason;
    record.reset_received = lender.reset_received;
    record.reset_received_in = lender.reset_received_in;
    true
}

#[cfg(test)]
mod tests {
    use sockleak_ebpf::{ORIGIN_INVENTORY, state};

    use super::*;

    fn key(tgid: u32) -> SocketKey {
        SocketKey {
            sk: 1,
            time: u64::from(tgid),
            tgid,
            origin: ORIGIN_INVENTORY,
        }
    }

    fn listener() -> SocketRecord {
        SocketRecord {
            state: state::LISTEN,
            inode: 7,
            ..SocketRecord::default()
        }
    }

    #[test]
    fn an_heir_without_changes_lends_none() {
        let mut reported = listener();
        reported.change_count = 1;
        reported.changes[0] = StateChange::new(90, state::LISTEN, state::CLOSE);
        let heir = (key(20), listener());
        let mut record = listener();
        assert!(borrow_from(&[heir, (key(10), reported)], &key(30), &mut record));
        assert_eq!((record.change_count, record.changes[0].after()), (1, 70));

        let mut alone = listener();
        assert!(!borrow_from(&[heir], &key(30), &mut alone));
        assert_eq!(alone, listener());
    }

    #[test]
    fn only_what_was_followed_before_the_death_is_the_same_socket() {
        let connection = SocketRecord {
            state: state::ESTABLISHED,
            inode: 7,
            ..SocketRecord::default()
        };
        let mut closed = connection;
        (closed.inode, closed.change_count) = (0, 1);
        closed.changes[0] = StateChange::new(70, state::ESTABLISHED, state::FIN_WAIT1);
        for (since, borrowed) in [(20, 1), (40, 0)] {
            let live = SocketKey {
                origin: ORIGIN_LIVE,
                time: since,
                ..key(30)
            };
            let mut record = connection;
            borrow_from(&[(live, closed)], &key(30), &mut record);
            assert_eq!(record.change_count, borrowed, "followed since {since}");
        }
    }
}
