//! The BPF maps as user space uses them. They are the truth: the ring only wakes.

use std::collections::HashSet;
use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::sys::SyscallError;
use aya::{Ebpf, Pod};
use sockleak_ebpf::{
    Death, FdKey, ORIGIN_PLACE, ProcessKey, SocketKey, SocketRecord, Watched, counter, maps, state,
};

use super::{batch, decode};

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
const NOEXIST: u64 = 1;

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

/// Visits every entry of a map, as bytes.
fn visit<MK: Pod, MV: Pod, const K: usize, const V: usize>(
    map: &impl IterableMap<MK, MV>,
    name: &'static str,
    each: impl FnMut(&[u8; K], &[u8; V]),
) -> Result<(), TableError> {
    batch::visit(map.map().fd().as_fd(), each).map_err(|io_error| TableError {
        name,
        source: MapError::SyscallError(SyscallError {
            call: "bpf_map_lookup_batch",
            io_error,
        }),
    })
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
    pub fn watch(&mut self, pid: u32, parent: u32) -> Result<(), TableError> {
        let failed = |name| move |source| TableError { name, source };
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

    /// Visits the wanted ones of the followed sockets, in one pass over the maps. Those whose memory is given to
    /// other sockets meanwhile may be visited twice, and where there was no room for all of them others too.
    ///
    /// # Errors
    /// When the kernel refuses to read them.
    pub fn visit_sockets(
        &self,
        mut wanted: impl FnMut(&SocketKey) -> bool,
        mut each: impl FnMut(SocketKey, SocketRecord),
    ) -> Result<(), TableError> {
        let mut one = |key: SocketKey, record: &[u8; SOCKET_RECORD]| {
            if wanted(&key) {
                each(key, decode::socket_record(record));
            }
        };
        // The hooks move records from the first map to the second one, which therefore comes later.
        self.visit_with_room(&mut one)?;
        let moved = self.count(counter::MOVED);
        self.visit_aside(|_, key, record| one(key, record))?;
        // They move some within the second map too, each once: what the pass missed has its last place by now.
        if self.count(counter::MOVED) != moved {
            self.visit_aside(|_, key, record| one(key, record))?;
        }
        Ok(())
    }

    /// Visits the wanted ones of those followed sockets that are the first ones of their address, each once.
    ///
    /// # Errors
    /// When the kernel refuses to read them.
    pub fn visit_first(
        &self,
        mut wanted: impl FnMut(&SocketKey) -> bool,
        mut each: impl FnMut(SocketKey, SocketRecord),
    ) -> Result<(), TableError> {
        let mut one = |key: SocketKey, record: &[u8; SOCKET_RECORD]| {
            if wanted(&key) {
                each(key, decode::socket_record(record));
            }
        };
        self.visit_with_room(&mut one)?;
        self.visit_aside(|is_first, key, record| {
            if is_first {
                one(key, record);
            }
        })
    }

    /// The wanted ones of the records that were set aside.
    ///
    /// # Errors
    /// When the kernel refuses to read them.
    pub fn aside(
        &self,
        wanted: impl Fn(&SocketKey) -> bool,
    ) -> Result<Vec<(SocketKey, SocketRecord)>, TableError> {
        let mut found = Vec::new();
        if self.count(counter::ASIDE) == 0 {
            return Ok(found);
        }
        self.visit_aside(|is_first, key, record| {
            if !is_first && wanted(&key) {
                found.push((key, decode::socket_record(record)));
            }
        })?;
        Ok(found)
    }

    /// How many records were set aside. One that is counted is in its new place, and was not when it was not.
    #[must_use]
    pub fn set_aside_until_now(&self) -> u64 {
        self.count(counter::ASIDE)
    }

    /// Visits the first records of their addresses that `SOCKETS` has.
    fn visit_with_room(
        &self,
        mut each: impl FnMut(SocketKey, &[u8; SOCKET_RECORD]),
    ) -> Result<(), TableError> {
        visit(&self.sockets, maps::SOCKETS, |sk, record| {
            each(decode::socket_owner(u64::from_ne_bytes(*sk), record), record);
        })
    }

    /// Visits those that were set aside, and the first ones of their addresses that `SOCKETS` had no room for. An empty
    /// map of many buckets takes as long to read as a full one of as many.
    fn visit_aside(
        &self,
        mut each: impl FnMut(bool, SocketKey, &[u8; SOCKET_RECORD]),
    ) -> Result<(), TableError> {
        if self.count(counter::ASIDE) + self.count(counter::OVERFLOWN) == 0 {
            return Ok(());
        }
        visit(&self.aside, maps::ASIDE, |key, record| {
            let key = decode::socket_key(key);
            if key.origin == ORIGIN_PLACE {
                each(true, decode::socket_owner(key.sk, record), record);
            } else {
                each(false, key, record);
            }
        })
    }

    /// The record that the changes of the socket at this address go to, and its key.
    #[must_use]
    pub fn followed(&self, sk: u64) -> Option<(SocketKey, SocketRecord)> {
        let first = self.sockets.get(&sk, 0).ok();
        let record = decode::socket_record(&first.or_else(|| self.set_aside(&SocketKey::place(sk)))?);
        Some((record.key(sk), record))
    }

    /// The record of this key.
    #[must_use]
    pub fn socket(&self, key: &SocketKey) -> Option<SocketRecord> {
        let is_its = |record: &[u8; SOCKET_RECORD]| decode::socket_owner(key.sk, record) == *key;
        let first = self.sockets.get(&key.sk, 0).ok().filter(is_its);
        // It may have been moved just now: from either of the first two places to the last one.
        let found = first
            .or_else(|| self.set_aside(&SocketKey::place(key.sk)).filter(is_its))
            .or_else(|| self.set_aside(key))?;
        Some(decode::socket_record(&found))
    }

    /// What `ASIDE` has under this key.
    fn set_aside(&self, key: &SocketKey) -> Option<[u8; SOCKET_RECORD]> {
        self.aside.get(&decode::encode_socket_key(key), 0).ok()
    }

    /// Stops following sockets.
    ///
    /// # Errors
    /// When the kernel refuses to read who else has them.
    pub fn forget_sockets(&mut self, forgotten: &[SocketKey]) -> Result<(), TableError> {
        let mut vacant = HashSet::new();
        for key in forgotten {
            let Some(record) = self.forget_first(key) else {
                let _ = self.aside.remove(&decode::encode_socket_key(key));
                continue;
            };
            if record.changes.iter().all(|change| change.to() != state::CLOSE) {
                vacant.insert(key.sk);
            }
        }
        self.promote(&vacant)
    }

    /// Removes the record of this key if it is the first one of its address, and returns it. Another socket may be
    /// followed under this address by now.
    fn forget_first(&mut self, key: &SocketKey) -> Option<SocketRecord> {
        let is_its = |record: &[u8; SOCKET_RECORD]| decode::socket_owner(key.sk, record) == *key;
        if let Some(record) = self.sockets.get(&key.sk, 0).ok().filter(is_its) {
            let _ = self.sockets.remove(&key.sk);
            return Some(decode::socket_record(&record));
        }
        let place = SocketKey::place(key.sk);
        let record = self.set_aside(&place).filter(is_its)?;
        let _ = self.aside.remove(&decode::encode_socket_key(&place));
        Some(decode::socket_record(&record))
    }

    /// Of processes that share a socket the changes of its state go to the first one's record. When that is
    /// forgotten while the socket is there, another one takes its place. After that its memory may be another one's.
    fn promote(&mut self, vacant: &HashSet<u64>) -> Result<(), TableError> {
        if vacant.is_empty() || self.count(counter::ASIDE) == 0 {
            return Ok(());
        }
        let mut heirs = Vec::new();
        self.visit_aside(|is_first, key, record| {
            if !is_first && vacant.contains(&key.sk) {
                heirs.push((key, *record));
            }
        })?;
        for (key, record) in heirs {
            if self.take_place(key.sk, record) {
                let _ = self.aside.remove(&decode::encode_socket_key(&key));
            }
        }
        Ok(())
    }

    /// Makes it the first record of the address. False if there is one, or no room.
    fn take_place(&mut self, sk: u64, record: [u8; SOCKET_RECORD]) -> bool {
        let place = SocketKey::place(sk);
        if self.set_aside(&place).is_some() {
            return false;
        }
        match self.sockets.insert(sk, record, NOEXIST) {
            // The hooks do not look there before they have put a record there.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                let place = decode::encode_socket_key(&place);
                self.count(counter::OVERFLOWN) > 0 && self.aside.insert(place, record, NOEXIST).is_ok()
            }
            done => done.is_ok(),
        }
    }

    /// Every further descriptor of the sockets of these deaths.
    ///
    /// # Errors
    /// When the kernel refuses to read them.
    pub fn extra_fds(&self, wanted: impl Fn(&FdKey) -> bool) -> Result<Vec<FdKey>, TableError> {
        let mut found = Vec::new();
        if self.count(counter::EXTRA_FDS) == 0 {
            return Ok(found);
        }
        visit(&self.extra_fds, maps::EXTRA_FDS, |key, _: &[u8; 1]| {
            let key = decode::fd_key(key);
            if wanted(&key) {
                found.push(key);
            }
        })?;
        Ok(found)
    }

    /// Forgets a further descriptor.
    pub fn forget_fd(&mut self, key: &FdKey) {
        let _ = self.extra_fds.remove(&decode::encode_fd_key(key));
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
