//! The BPF maps as user space uses them. They are the truth: the ring only wakes.

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
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
pub struct TableError {
    name: &'static str,
    source: MapError,
}

/// Every map but the ring.
pub struct Tables {
    watched: HashMap<MapData, u32, [u8; WATCHED]>,
    deaths: HashMap<MapData, [u8; PROCESS_KEY], [u8; DEATH]>,
    sockets: HashMap<MapData, [u8; SOCKET_KEY], [u8; SOCKET_RECORD]>,
    followed: HashMap<MapData, u64, [u8; SOCKET_KEY]>,
    extra_fds: HashMap<MapData, [u8; FD_KEY], u8>,
    counters: PerCpuArray<MapData, u64>,
}

/// The counters of [`counter`], summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// See [`counter::EVENTS_LOST`].
    pub events_lost: u64,
    /// See [`counter::FOLLOW_FAILED`].
    pub follow_failed: u64,
    /// See [`counter::PROCESS_FAILED`].
    pub process_failed: u64,
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, TableError> {
    ebpf.take_map(name)
        .ok_or(MapError::InvalidName {
            name: name.to_owned(),
        })
        .and_then(T::try_from)
        .map_err(|source| TableError { name, source })
}

/// Takes the event ring out of the loaded object.
///
/// # Errors
/// When the object has no such map.
pub fn take_ring(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, TableError> {
    take(ebpf, maps::EVENTS)
}

impl Tables {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// When the object lacks one of them.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            watched: take(ebpf, maps::WATCHED)?,
            deaths: take(ebpf, maps::DEATHS)?,
            sockets: take(ebpf, maps::SOCKETS)?,
            followed: take(ebpf, maps::FOLLOWED)?,
            extra_fds: take(ebpf, maps::EXTRA_FDS)?,
            counters: take(ebpf, maps::COUNTERS)?,
        })
    }

    /// Watches a process from now on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn watch(&mut self, pid: u32, parent: u32) -> Result<(), TableError> {
        self.watched
            .insert(pid, decode::encode_watched(0, parent), 0)
            .map_err(|source| TableError {
                name: maps::WATCHED,
                source,
            })
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

    /// Every followed socket of the given processes, in one pass over the map.
    pub fn sockets(&self, wanted: impl Fn(&SocketKey) -> bool) -> Vec<(SocketKey, SocketRecord)> {
        let mut found = Vec::new();
        for key in self.sockets.keys().filter_map(Result::ok) {
            let decoded = decode::socket_key(&key);
            if wanted(&decoded)
                && let Ok(record) = self.sockets.get(&key, 0)
            {
                found.push((decoded, decode::socket_record(&record)));
            }
        }
        found
    }

    /// The record of one followed socket as it is now.
    #[must_use]
    pub fn socket(&self, key: &SocketKey) -> Option<SocketRecord> {
        self.sockets
            .get(&decode::encode_socket_key(key), 0)
            .ok()
            .map(|record| decode::socket_record(&record))
    }

    /// Stops following a socket.
    pub fn forget_socket(&mut self, key: &SocketKey) {
        let encoded = decode::encode_socket_key(key);
        let _ = self.sockets.remove(&encoded);
        // A later death, or another socket in the same memory, may be followed under this address by now.
        if self
            .followed
            .get(&key.sk, 0)
            .is_ok_and(|current| current == encoded)
        {
            let _ = self.followed.remove(&key.sk);
        }
    }

    /// The record that a later death made of the same socket, if there is one (processes that share a
    /// listener and die one after the other): the changes of state go to the latest.
    #[must_use]
    pub fn latest(&self, sk: u64) -> Option<SocketKey> {
        self.followed.get(&sk, 0).ok().map(|key| decode::socket_key(&key))
    }

    /// Every further descriptor of the sockets of one death.
    #[must_use]
    pub fn extra_fds(&self, tgid: u32, time: u64) -> Vec<FdKey> {
        self.extra_fds
            .keys()
            .filter_map(Result::ok)
            .map(|key| decode::fd_key(&key))
            .filter(|key| key.tgid == tgid && key.time == time)
            .collect()
    }

    /// Forgets a further descriptor.
    pub fn forget_fd(&mut self, key: &FdKey) {
        let _ = self.extra_fds.remove(&decode::encode_fd_key(key));
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let sum = |index| {
            self.counters
                .get(&index, 0)
                .map_or(0, |values| values.iter().sum())
        };
        Counters {
            events_lost: sum(counter::EVENTS_LOST),
            follow_failed: sum(counter::FOLLOW_FAILED),
            process_failed: sum(counter::PROCESS_FAILED),
        }
    }
}
