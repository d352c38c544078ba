//! One pass over the socket maps that finds the records of each dead process.

use std::collections::{HashMap, HashSet};

use sockleak_core::observed::{ProcessId, Snapshot, Socket};
use sockleak_ebpf::SocketRecord;

use super::keys::{self, Dead, RecordKeys};
use super::maps::{Maps, MapsError};
use super::sharing::Aside;
use super::translate::Translator;

/// What was found of one process.
#[derive(Default)]
pub struct Survey {
    keys: RecordKeys,
    held: HeldElsewhere,
    /// Addresses of sockets without a change of state: another record may have it.
    unchanged: HashSet<u64>,
}

impl Survey {
    fn of(id: ProcessId, death: u64) -> Self {
        Self {
            keys: RecordKeys::of(id, death),
            ..Self::default()
        }
    }

    /// The time of the death that it was made after; 0 where that was not known.
    #[must_use]
    pub const fn death(&self) -> u64 {
        self.keys.death
    }
}

/// Surveys these processes. The two closures tell who had a PID at a moment, and get every socket.
pub(super) fn survey(
    maps: &Maps,
    translator: &Translator,
    dead: &Dead,
    (who, mut sighted): (
        impl Fn(u32, u64) -> Option<ProcessId>,
        impl FnMut(ProcessId, &Socket),
    ),
) -> Result<Vec<(ProcessId, Survey)>, MapsError> {
    let new = |(id, death): (&ProcessId, &u64)| (*id, Survey::of(*id, *death));
    let mut surveys: HashMap<ProcessId, Survey> = dead.iter().map(new).collect();
    let owner = |key: &_| keys::owner(key, dead, &who);
    let mut among = 0;
    maps.visit_sockets(
        |key| {
            among += 1;
            owner(key).is_some()
        },
        |key, record| {
            let Some((id, survey)) = owner(&key).and_then(|id| Some((id, surveys.get_mut(&id)?))) else {
                return;
            };
            survey.keys.add(key, &record);
            if record.change_count == 0 {
                survey.unchanged.insert(key.sk);
            }
            survey.held.add(&record);
            sighted(id, &translator.socket(&key, &record, &[]));
        },
    )?;
    for survey in surveys.values_mut() {
        survey.keys.settle(among);
    }
    Ok(surveys.into_iter().collect())
}

/// Several processes whose records are read together.
pub struct Surveyed {
    /// A process without sockets has none.
    keys: HashMap<ProcessId, RecordKeys>,
    held: HeldElsewhere,
    aside: Aside,
}

impl Surveyed {
    pub(super) fn gather(maps: &Maps, surveys: impl IntoIterator<Item = Survey>) -> Result<Self, MapsError> {
        let mut keys = HashMap::new();
        let mut held = HeldElsewhere::default();
        let mut unchanged = HashSet::new();
        for survey in surveys {
            held.extend(survey.held);
            unchanged.extend(survey.unchanged);
            if survey.keys.len() > 0 {
                keys.insert(survey.keys.id, survey.keys);
            }
        }
        let aside = Aside::read(maps, &unchanged)?;
        Ok(Self { keys, held, aside })
    }

    /// Inodes of the sockets that somebody else may have: of those with more references than their process had
    /// descriptors, and of those that a snapshot shows with an inode.
    #[must_use]
    pub fn held_elsewhere(&self, snapshots: &[Snapshot]) -> HashSet<u64> {
        self.held.inodes(snapshots)
    }

    pub(super) fn keys(&self, id: ProcessId) -> Option<&RecordKeys> {
        self.keys.get(&id)
    }

    pub(super) const fn aside(&self) -> &Aside {
        &self.aside
    }
}

/// The sockets of the dead that somebody else may have, put together socket by socket.
#[derive(Default)]
struct HeldElsewhere {
    /// Inodes of those of which nothing says so.
    others: Vec<u64>,
    shared: HashSet<u64>,
}

impl HeldElsewhere {
    fn add(&mut self, record: &SocketRecord) {
        if record.inode == 0 {
            return;
        }
        if record.references > record.fd_count {
            self.shared.insert(record.inode);
        } else {
            self.others.push(record.inode);
        }
    }

    fn extend(&mut self, other: Self) {
        self.others.extend(other.others);
        self.shared.extend(other.shared);
    }

    fn inodes(&self, snapshots: &[Snapshot]) -> HashSet<u64> {
        let sightings = snapshots.iter().flat_map(Snapshot::seen);
        let seen: HashSet<u64> = sightings.map(|sighting| sighting.inode).collect();
        let mut inodes = self.shared.clone();
        inodes.extend(self.others.iter().filter(|inode| seen.contains(inode)));
        inodes
    }
}
