//! What the BPF programs recorded: who is watched, who died, and which sockets they had. The ABI ends here: whoever asks
//! gets types of the domain.
//!
//! A socket record has one place by its address, and every other record of that address lies aside (`maps`). So the
//! records of one process are found by a survey in one pass (`survey`), kept as keys (`keys`), and read when its report is
//! due (`records`), with what another process's record of the same socket knows (`sharing`).

mod deaths;
pub(crate) mod decode;
mod events;
mod keys;
mod maps;
mod records;
mod sharing;
mod survey;
pub(crate) mod translate;
mod watched;

use std::time::Duration;

use aya::Ebpf;
use jiff::Timestamp;
use sockleak_core::observed::{ProcessId, Socket};
use sockleak_ebpf::{ORIGIN_LIVE, state};

pub use self::deaths::{Deaths, RecordedDeath};
pub use self::events::{Change, Event, Events, EventsError, ProgramLog, SocketChange};
pub use self::keys::Dead;
pub use self::maps::{Counters, MapsError};
pub use self::records::Records;
pub use self::survey::{Survey, Surveyed};
pub use self::watched::Watched;

use self::maps::Maps;
use self::sharing::Reported;
use self::translate::Translator;
use crate::clock::{self, BootClock};
use crate::kernel_types::KernelTypes;

/// The maps of a loaded tracer, in the domain's words.
pub struct Inventory {
    maps: Maps,
    translator: Translator,
    reported: Reported,
}

impl Inventory {
    /// Takes the maps out of the loaded object. `hz` are the ticks of the kernel a second.
    pub(crate) fn open(ebpf: &mut Ebpf, kernel: &KernelTypes, hz: u32) -> Result<Self, MapsError> {
        Ok(Self {
            maps: Maps::take(ebpf)?,
            translator: Translator::new(BootClock::sample(), hz, &kernel.reset_reasons),
            reported: Reported::default(),
        })
    }

    /// Ticks of the kernel a second.
    #[must_use]
    pub const fn hz(&self) -> u32 {
        self.translator.hz
    }

    /// The wall-clock time of a moment in boot-time nanoseconds.
    #[must_use]
    pub fn time(&self, boottime_ns: u64) -> Timestamp {
        self.translator.time(boottime_ns)
    }

    /// Watches a process from now on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn watch(&mut self, pid: u32, parent: u32) -> Result<(), MapsError> {
        self.maps.watch(pid, parent)
    }

    /// What is known of a watched process while it lives.
    #[must_use]
    pub fn watched(&self, pid: u32) -> Option<Watched> {
        self.maps.watched(pid).map(|record| Watched::new(&record))
    }

    /// The watched processes that are alive.
    #[must_use]
    pub fn watched_pids(&self) -> Vec<u32> {
        self.maps.watched_pids()
    }

    /// Stops watching a process.
    pub fn unwatch(&mut self, pid: u32) {
        self.maps.unwatch(pid);
    }

    /// Reads the deaths that were not forgotten yet.
    #[must_use]
    pub fn deaths(&self) -> Deaths {
        Deaths::read(&self.maps, &self.translator)
    }

    /// Forgets a death.
    pub fn forget_death(&mut self, death: &RecordedDeath) {
        self.maps.forget_death(&death.key());
    }

    /// Finds the records of each of these processes, in one pass over the maps. `who` tells who had a PID at a moment, and
    /// `sighted` gets every socket of theirs. After a death its records change no more in what a look at the kernel needs,
    /// so that this can be done while the sockets settle.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn survey(
        &self,
        dead: &Dead,
        who: impl Fn(u32, u64) -> Option<ProcessId>,
        sighted: impl FnMut(ProcessId, &Socket),
    ) -> Result<Vec<(ProcessId, Survey)>, MapsError> {
        survey::survey(&self.maps, &self.translator, dead, (who, sighted))
    }

    /// Begins to read the records of several processes, whose sockets are looked at together.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn gather(&self, surveys: impl IntoIterator<Item = Survey>) -> Result<Surveyed, MapsError> {
        Surveyed::gather(&self.maps, surveys)
    }

    /// Reads the sockets of one of these processes.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn records(&self, id: ProcessId, surveyed: &Surveyed) -> Result<Records, MapsError> {
        let Some(keys) = surveyed.keys(id) else {
            return Ok(Records::default());
        };
        let sharers = sharing::Sharers {
            maps: &self.maps,
            reported: &self.reported,
            aside: surveyed.aside(),
        };
        records::read(&self.maps, &sharers, &self.translator, keys)
    }

    /// Removes the records of reported processes from the maps. While other deaths wait for their reports, what these may
    /// need of a socket that they had too is kept.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn forget_sockets(
        &mut self,
        ids: &[ProcessId],
        surveyed: &Surveyed,
        deaths: &Deaths,
    ) -> Result<(), MapsError> {
        let reported = ids.iter().filter(|id| deaths.of(**id).is_some()).count();
        let others_wait = deaths.iter().count() > reported;
        if !others_wait {
            self.reported.clear();
        }
        for keys in ids.iter().filter_map(|id| surveyed.keys(*id)) {
            if others_wait {
                let is_shared = deaths.of(keys.id).is_none_or(|death| death.shares_table);
                self.reported.keep(&self.maps, keys.shared(is_shared));
            }
            self.maps.forget_sockets(&keys.iter().collect::<Vec<_>>())?;
            for fd in self.maps.extra_fds(|key| keys.has_fd(key))? {
                self.maps.forget_fd(&fd);
            }
        }
        Ok(())
    }

    /// Forgets sockets that living processes closed, and that have been gone for so long, so that a busy client never
    /// fills the maps.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn forget_stale(&mut self, age: Duration) -> Result<(), MapsError> {
        let now = clock::boottime_ns();
        let is_old = |time: u64| u128::from(now.saturating_sub(time)) > age.as_nanos();
        let mut stale = Vec::new();
        self.maps.visit_sockets(
            |key| key.origin == ORIGIN_LIVE && is_old(key.time),
            |key, record| {
                let mut changes = record.changes.iter();
                if changes.any(|change| change.to() == state::CLOSE && is_old(record.time + change.after())) {
                    stale.push(key);
                }
            },
        )?;
        self.maps.forget_sockets(&stale)
    }

    /// What the programs could not record or send until now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.maps.counters()
    }
}
