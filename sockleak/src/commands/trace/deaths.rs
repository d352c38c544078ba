//! The deaths that the exit hook recorded, and whose they are.

use std::collections::HashMap;

use sockleak_ebpf::{Death, ProcessKey};
use sockleak_kernel::tables::Tables;

use super::processes::ProcessId;

/// The deaths that are not forgotten, by PID.
#[derive(Default)]
pub struct Deaths(HashMap<u32, Vec<(ProcessKey, Death)>>);

impl Deaths {
    /// Reads all of them.
    pub fn read(tables: &Tables) -> Self {
        let mut deaths = Self::default();
        for (key, death) in tables.deaths() {
            deaths.add(key, death);
        }
        deaths
    }

    fn add(&mut self, key: ProcessKey, death: Death) {
        self.0.entry(key.tgid).or_default().push((key, death));
    }

    /// The death of this process: the one whose life that moment belongs to.
    #[must_use]
    pub fn of(&self, id: ProcessId) -> Option<&(ProcessKey, Death)> {
        let lived = |(key, death): &&(ProcessKey, Death)| key.start <= id.since && id.since <= death.time;
        self.0.get(&id.pid)?.iter().find(lived)
    }

    /// When the process died, in boot-time nanoseconds; 0 where that is not known.
    #[must_use]
    pub fn time(&self, id: ProcessId) -> u64 {
        self.of(id).map_or(0, |(_, death)| death.time)
    }

    /// Somebody with that PID died.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        self.0.contains_key(&pid)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(ProcessKey, Death)> {
        self.0.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_belongs_to_the_life_that_it_ended() {
        let mut deaths = Deaths::default();
        for (start, time) in [(100, 200), (210, 300)] {
            let key = ProcessKey {
                start,
                tgid: 7,
                _pad: 0,
            };
            let death = Death {
                time,
                ..Death::default()
            };
            deaths.add(key, death);
        }
        let time = |since| deaths.time(ProcessId { pid: 7, since });
        assert_eq!([time(99), time(100), time(200)], [0, 200, 200]);
        assert_eq!([time(205), time(210), time(250), time(301)], [0, 300, 300, 0]);
        assert!(deaths.has(7) && !deaths.has(8));
        assert_eq!(deaths.iter().count(), 2);
    }
}
