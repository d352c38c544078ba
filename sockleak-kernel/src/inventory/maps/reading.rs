//! Reading what the programs recorded of sockets: all of it in one pass, or one record.
//!
//! The first record of an address is in `SOCKETS`, or has a place in `ASIDE` where that has no room; every other record
//! is in `ASIDE` under its own key (`sockleak-ebpf/src/maps.rs`). The programs move records while they are read.

use std::os::fd::AsFd as _;

use aya::Pod;
use aya::maps::{IterableMap, MapError};
use aya::sys::SyscallError;
use sockleak_ebpf::{FdKey, ORIGIN_PLACE, SocketKey, SocketRecord, counter, maps};

use super::{Maps, MapsError, SOCKET_RECORD};
use crate::batch;
use crate::inventory::decode;

/// Visits every entry of a map, as bytes.
fn visit<MK: Pod, MV: Pod, const K: usize, const V: usize>(
    map: &impl IterableMap<MK, MV>,
    name: &'static str,
    each: impl FnMut(&[u8; K], &[u8; V]),
) -> Result<(), MapsError> {
    batch::visit(map.map().fd().as_fd(), each).map_err(|io_error| MapsError {
        name,
        source: MapError::SyscallError(SyscallError {
            call: "bpf_map_lookup_batch",
            io_error,
        }),
    })
}

impl Maps {
    /// Visits the wanted ones of the followed sockets, in one pass over the maps. Those whose memory is given to
    /// other sockets meanwhile may be visited twice, and where there was no room for all of them others too.
    ///
    /// # Errors
    /// When the kernel refuses to read them.
    pub fn visit_sockets(
        &self,
        mut wanted: impl FnMut(&SocketKey) -> bool,
        mut each: impl FnMut(SocketKey, SocketRecord),
    ) -> Result<(), MapsError> {
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
    ) -> Result<(), MapsError> {
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
    ) -> Result<Vec<(SocketKey, SocketRecord)>, MapsError> {
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

    /// How many records were set aside. One that is counted is in its new place, and one that is not has not given up its
    /// old one.
    #[must_use]
    pub fn set_aside_until_now(&self) -> u64 {
        self.count(counter::ASIDE)
    }

    /// Visits the first records of their addresses that `SOCKETS` has.
    fn visit_with_room(
        &self,
        mut each: impl FnMut(SocketKey, &[u8; SOCKET_RECORD]),
    ) -> Result<(), MapsError> {
        visit(&self.sockets, maps::SOCKETS, |sk, record| {
            each(decode::socket_owner(u64::from_ne_bytes(*sk), record), record);
        })
    }

    /// Visits those that were set aside, and the first ones of their addresses that `SOCKETS` had no room for. An empty
    /// map of many buckets takes as long to read as a full one of as many.
    pub(super) fn visit_aside(
        &self,
        mut each: impl FnMut(bool, SocketKey, &[u8; SOCKET_RECORD]),
    ) -> Result<(), MapsError> {
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
    pub(super) fn set_aside(&self, key: &SocketKey) -> Option<[u8; SOCKET_RECORD]> {
        self.aside.get(&decode::encode_socket_key(key), 0).ok()
    }

    /// Every further descriptor of the sockets of these deaths.
    ///
    /// # Errors
    /// When the kernel refuses to read them.
    pub fn extra_fds(&self, wanted: impl Fn(&FdKey) -> bool) -> Result<Vec<FdKey>, MapsError> {
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
}
