//! The BPF maps as user space uses them. They are the truth: the ring only wakes.

mod forgetting;
mod reading;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use sockleak_ebpf::{Death, FdKey, ProcessKey, SocketKey, SocketRecord, Watched, counter, maps};

use super::decode;

const WATCHED: usize = size_of::<Watched>();
const PROCESS_KEY: usize = size_of::<ProcessKey>();
const DEATH: usize = size_of::<Death>();
const SOCKET_KEY: usize = size_of::<SocketKey>();
const SOCKET_RECORD: usize = size_of::<SocketRecord>();
const FD_KEY: usize = size_of::<FdKey>();

/// A map that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the BPF map {name} cannot be used: {source}")]
pub struct MapsError {
    name: &'static str,
    source: MapError,
}

/// Every map but the ring.
pub struct Maps {
    watched: HashMap<MapData, u32, [u8; WATCHED]>,
    watched_bytes: Array<MapData, u8>,
    deaths: HashMap<MapData, [u8; PROCESS_KEY], [u8; DEATH]>,
    sockets: HashMap<MapData, u64, [u8; SOCKET_RECORD]>,
    aside: HashMap<MapData, [u8; SOCKET_KEY], [u8; SOCKET_RECORD]>,
    extra_fds: HashMap<MapData, [u8; FD_KEY], u8>,
    counters: PerCpuArray<MapData, u64>,
}

/// The counters of what was lost, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// See [`counter::EVENTS_LOST`].
    pub events_lost: u64,
    /// See [`counter::FOLLOW_FAILED`].
    pub follow_failed: u64,
    /// See [`counter::PROCESS_FAILED`].
    pub process_failed: u64,
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, MapsError> {
    ebpf.take_map(name)
        .ok_or(MapError::InvalidName {
            name: name.to_owned(),
        })
        .and_then(T::try_from)
        .map_err(|source| MapsError { name, source })
}

/// Takes the event ring out of the loaded object.
///
/// # Errors
/// When the object has no such map.
pub fn take_ring(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, MapsError> {
    take(ebpf, maps::EVENTS)
}

impl Maps {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// When the object lacks one of them.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Ok(Self {
            watched: take(ebpf, maps::WATCHED)?,
            watched_bytes: take(ebpf, maps::WATCHED_BYTES)?,
            deaths: take(ebpf, maps::DEATHS)?,
            sockets: take(ebpf, maps::SOCKETS)?,
            aside: take(ebpf, maps::ASIDE)?,
            extra_fds: take(ebpf, maps::EXTRA_FDS)?,
            counters: take(ebpf, maps::COUNTERS)?,
        })
    }

    /// Watches a process from now on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn watch(&mut self, pid: u32, parent: u32) -> Result<(), MapsError> {
        let failed = |name| move |source| MapsError { name, source };
        self.watched_bytes
            .set(pid % maps::WATCHED_BYTES_SIZE, 1, 0)
            .map_err(failed(maps::WATCHED_BYTES))?;
        self.watched
            .insert(pid, decode::encode_watched(0, parent), 0)
            .map_err(failed(maps::WATCHED))
    }

    /// What is known of a living watched process.
    #[must_use]
    pub fn watched(&self, pid: u32) -> Option<Watched> {
        self.watched
            .get(&pid, 0)
            .ok()
            .map(|bytes| decode::watched(&bytes))
    }

    /// The watched processes that are alive.
    #[must_use]
    pub fn watched_pids(&self) -> Vec<u32> {
        self.watched.keys().filter_map(Result::ok).collect()
    }

    /// Stops watching a process.
    pub fn unwatch(&mut self, pid: u32) {
        let _ = self.watched.remove(&pid);
    }

    /// The deaths that were not forgotten yet.
    #[must_use]
    pub fn deaths(&self) -> Vec<(ProcessKey, Death)> {
        self.deaths
            .iter()
            .filter_map(Result::ok)
            .map(|(key, death)| (decode::process_key(&key), decode::death(&death)))
            .collect()
    }

    /// Forgets a death.
    pub fn forget_death(&mut self, key: &ProcessKey) {
        let _ = self.deaths.remove(&decode::encode_process_key(key));
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            events_lost: self.count(counter::EVENTS_LOST),
            follow_failed: self.count(counter::FOLLOW_FAILED),
            process_failed: self.count(counter::PROCESS_FAILED),
        }
    }

    fn count(&self, index: u32) -> u64 {
        self.counters
            .get(&index, 0)
            .map_or(0, |values| values.iter().sum())
    }
}
