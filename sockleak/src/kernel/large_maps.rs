//! The maps of which there are megabytes, made while the rest is prepared.
//!
//! The kernel allocates the buckets of a hash map page by page, which takes as long as reading its BTF. aya makes maps when
//! it has the object, which needs what BTF tells. So it makes small ones, and before a program is loaded that refers to
//! them the large ones, made meanwhile, get their descriptors.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};

use aya::maps::{Map, MapData, MapError};
use aya::{Ebpf, EbpfLoader};
use aya_obj::maps::{LegacyMap, PinningType, bpf_map_def};
use aya_obj::{EbpfSectionKind, generated};
use sockleak_ebpf::{FdKey, SocketKey, SocketRecord, maps};

use super::load_error::LoadError;
use super::processor::elsewhere;

/// Maps that are being made.
pub struct LargeMaps {
    room: Room,
    thread: Option<JoinHandle<Result<Vec<Made>, LoadError>>>,
}

/// For how many sockets there is room.
#[derive(Clone, Copy)]
pub struct Room {
    /// For how many records memory is allocated at once.
    pub at_once: u32,
    /// How many sockets a process may have.
    pub sockets: u32,
}

/// A map, by its name.
type Made = (&'static str, MapData);

impl LargeMaps {
    /// Begins to make them.
    pub fn begin(room: Room) -> Self {
        let thread = thread::Builder::new().spawn(elsewhere(move || make(room)));
        Self {
            room,
            thread: thread.ok(),
        }
    }

    /// Lets the loader make them as small as can be.
    pub fn keep_small(&self, loader: &mut EbpfLoader<'_>) {
        for (name, ..) in definitions(self.room) {
            loader.map_max_entries(name, 1);
        }
    }

    /// Puts them where the object has the small ones. No program may be loaded yet.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn take_places(self, ebpf: &Ebpf) -> Result<(), LoadError> {
        let made = self.thread.and_then(|thread| thread.join().ok()?.ok());
        // What failed there, for want of memory at that moment or for good, is tried again and tells why.
        for (name, large) in made.map_or_else(|| make(self.room), Ok)? {
            let Some(Map::HashMap(small)) = ebpf.map(name) else {
                let reason = io::ErrorKind::NotFound.into();
                return Err(LoadError::Map { name, reason });
            };
            let (large, small) = (large.fd().as_fd(), small.fd().as_fd());
            // SAFETY: The call takes no pointers. `small` stays an open descriptor of a map, which aya owns.
            if unsafe { libc::dup3(large.as_raw_fd(), small.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
                let reason = io::Error::last_os_error();
                return Err(LoadError::Map { name, reason });
            }
        }
        Ok(())
    }
}

fn make(room: Room) -> Result<Vec<Made>, LoadError> {
    definitions(room)
        .into_iter()
        .map(|(name, definition)| {
            let map = aya_obj::Map::Legacy(LegacyMap {
                def: definition,
                inner_def: None,
                section_index: 0,
                section_kind: EbpfSectionKind::Maps,
                symbol_index: None,
                data: Vec::new(),
            });
            let made = MapData::create(map, name, None).map_err(|error| LoadError::Map {
                name,
                reason: reason(error),
            });
            Ok((name, made?))
        })
        .collect()
}

fn reason(error: MapError) -> io::Error {
    match error {
        MapError::CreateError { io_error, .. } => io_error,
        other => io::Error::other(other),
    }
}

/// As `sockleak-ebpf/src/maps.rs` has them.
fn definitions(room: Room) -> [(&'static str, bpf_map_def); 3] {
    let hash = |key: usize, value: usize, max_entries, map_flags| bpf_map_def {
        map_type: generated::bpf_map_type::BPF_MAP_TYPE_HASH as u32,
        key_size: key as u32,
        value_size: value as u32,
        max_entries,
        map_flags,
        id: 0,
        pinning: PinningType::None,
    };
    let by_and_by = generated::BPF_F_NO_PREALLOC;
    let (record, extra) = (size_of::<SocketRecord>(), maps::EXTRA_FDS_SIZE);
    let at_once = room.at_once.min(room.sockets);
    [
        (maps::SOCKETS, hash(size_of::<u64>(), record, at_once, 0)),
        (
            maps::ASIDE,
            hash(size_of::<SocketKey>(), record, room.sockets, by_and_by),
        ),
        (
            maps::EXTRA_FDS,
            hash(size_of::<FdKey>(), size_of::<u8>(), extra, by_and_by),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::load::OBJECT;

    /// What a program was verified for is the map that it gets.
    #[test]
    fn they_are_what_the_object_says() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        for (name, large) in definitions(Room {
            at_once: 7,
            sockets: 77,
        }) {
            let said = &object.maps[name];
            let of = |map_type, key_size, value_size, map_flags| (map_type, key_size, value_size, map_flags);
            assert_eq!(
                of(large.map_type, large.key_size, large.value_size, large.map_flags),
                of(
                    said.map_type(),
                    said.key_size(),
                    said.value_size(),
                    said.map_flags()
                ),
                "{name}"
            );
        }
    }
}
