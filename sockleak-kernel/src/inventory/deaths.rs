//! The deaths that the exit hook recorded, and whose they are.

use std::collections::HashMap;

use sockleak_core::observed::{Exit, ProcessId};
use sockleak_ebpf::{DEATH_IO_URING, Death as DeathRecord, ProcessKey};

use super::maps::Maps;
use super::translate::{self, Translator};
use super::watched::Watched;

/// A death as the exit hook saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedDeath {
    pub pid: u32,
    /// When the process began to live, in boot-time nanoseconds.
    pub start: u64,
    /// When it died, in boot-time nanoseconds.
    pub time: u64,
    pub exit: Exit,
    /// `comm` of the thread-group leader.
    pub comm: String,
    /// The PID in its own PID namespace; `None` if it was not seen.
    pub ns_pid: Option<u32>,
    /// Sockets in its inventory.
    pub sockets: u32,
    /// Sockets that did not fit into the maps.
    pub not_recorded: u32,
    /// Open slots of the fd table that were not looked at.
    pub slots_skipped: u32,
    /// Another process, or a thread that ended later, used its fd table.
    pub shares_table: bool,
    /// A thread of it used io_uring.
    pub io_uring: bool,
    /// What was known of it while it lived.
    pub watched: Watched,
}

impl RecordedDeath {
    fn new(key: ProcessKey, record: &DeathRecord, translator: &Translator) -> Self {
        Self {
            pid: key.tgid,
            start: key.start,
            time: record.time,
            exit: translator.exit(record),
            comm: translate::comm(&record.comm),
            ns_pid: (record.ns_pid != 0).then_some(record.ns_pid),
            sockets: record.sockets,
            not_recorded: record.not_recorded,
            slots_skipped: record.slots_skipped,
            shares_table: record.files_users > 1,
            io_uring: record.flags & DEATH_IO_URING != 0,
            watched: Watched::new(&record.watched),
        }
    }

    pub(super) const fn key(&self) -> ProcessKey {
        ProcessKey {
            start: self.start,
            tgid: self.pid,
            _pad: 0,
        }
    }

    /// It had no socket, as far as the hook saw.
    #[must_use]
    pub const fn had_no_socket(&self) -> bool {
        self.sockets == 0 && self.not_recorded == 0 && self.slots_skipped == 0
    }
}

/// The deaths that are not forgotten, by PID.
#[derive(Default)]
pub struct Deaths(HashMap<u32, Vec<RecordedDeath>>);

impl Deaths {
    /// Reads all of them.
    pub(super) fn read(maps: &Maps, translator: &Translator) -> Self {
        let mut deaths = Self::default();
        for (key, record) in maps.deaths() {
            deaths.add(RecordedDeath::new(key, &record, translator));
        }
        deaths
    }

    fn add(&mut self, death: RecordedDeath) {
        self.0.entry(death.pid).or_default().push(death);
    }

    /// The death of this process: the one whose life that moment belongs to.
    #[must_use]
    pub fn of(&self, id: ProcessId) -> Option<&RecordedDeath> {
        let lived = |death: &&RecordedDeath| death.start <= id.since && id.since <= death.time;
        self.0.get(&id.pid)?.iter().find(lived)
    }

    /// When the process died, in boot-time nanoseconds; 0 where that is not known.
    #[must_use]
    pub fn time(&self, id: ProcessId) -> u64 {
        self.of(id).map_or(0, |death| death.time)
    }

    /// Somebody with that PID died.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.0.contains_key(&pid)
    }

    pub fn iter(&self) -> impl Iterator<Item = &RecordedDeath> {
        self.0.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootClock;

    #[test]
    fn a_death_belongs_to_the_life_that_it_ended() {
        let translator = Translator::new(BootClock::sample(), 250, &[]);
        let mut deaths = Deaths::default();
        for (start, time) in [(100, 200), (210, 300)] {
            let key = ProcessKey {
                start,
                tgid: 7,
                _pad: 0,
            };
            let record = DeathRecord {
                time,
                ..DeathRecord::default()
            };
            deaths.add(RecordedDeath::new(key, &record, &translator));
        }
        let time = |since| deaths.time(ProcessId { pid: 7, since });
        assert_eq!([time(99), time(100), time(200)], [0, 200, 200]);
        assert_eq!([time(205), time(210), time(250), time(301)], [0, 300, 300, 0]);
        assert!(deaths.has(7) && !deaths.has(8));
        let started: Vec<_> = deaths.iter().map(|death| death.start).collect();
        assert_eq!(started, [100, 210]);
    }
}
