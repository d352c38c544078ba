//! The maps of which there are megabytes, made while the rest is prepared.
//!
//! The kernel allocates the buckets of a hash map page by page, which takes as long as reading its BTF. aya makes maps when
//! it has the object, which needs what BTF tells. So it makes small ones, and before a program is loaded that refers to
//! them the large ones, made meanwhile, get their descriptors.
//!
//! Where BTF then tells that programs must not allocate entries, every map that allocates is replaced in this way by one
//! that has its memory from the beginning.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};

use aya::maps::{Map, MapData, MapError};
use aya::{Ebpf, EbpfLoader};
use aya_obj::maps::{LegacyMap, PinningType, bpf_map_def};
use aya_obj::{EbpfSectionKind, generated};
use sockleak_ebpf::{Death, FdKey, ProcessKey, SocketKey, SocketRecord, Watched, maps};

use super::load_error::LoadError;
use super::processor::elsewhere;

/// Maps that are being made.
pub struct LargeMaps {
    room: Room,
    thread: Option<JoinHandle<Result<Vec<Made>, LoadError>>>,
}

/// How many processes, and how many of their deaths, the object has room for.
const PROCESSES: u32 = 16_384;

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
/// What it is to be.
type Definition = (&'static str, bpf_map_def);

impl LargeMaps {
    /// Begins to make them, for a kernel whose programs may allocate entries, as most do.
    pub fn begin(room: Room) -> Self {
        let thread = thread::Builder::new().spawn(elsewhere(move || make(definitions(room))));
        Self {
            room,
            thread: thread.ok(),
        }
    }

    /// Lets the loader make them as small as can be.
    pub fn keep_small(&self, loader: &mut EbpfLoader<'_>) {
        for (name, _) in definitions(self.room) {
            loader.map_max_entries(name, 1);
        }
    }

    /// Puts them where the object has the small ones, or, if the programs may not allocate entries, others that have
    /// their memory. No program may be loaded yet.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn take_places(self, ebpf: &Ebpf, allocates_entries: bool) -> Result<(), LoadError> {
        let made = self.thread.and_then(|thread| thread.join().ok()?.ok());
        let made = match made.filter(|_| allocates_entries) {
            Some(made) => made,
            // What failed there, for want of memory at that moment or for good, is tried again and tells why.
            None if allocates_entries => make(definitions(self.room))?,
            None => make(preallocated(self.room))?,
        };
        for (name, large) in made {
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

fn make(definitions: impl IntoIterator<Item = Definition>) -> Result<Vec<Made>, LoadError> {
    definitions
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
fn definitions(room: Room) -> [Definition; 3] {
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

/// All hash maps, with memory for every entry.
fn preallocated(room: Room) -> Vec<Definition> {
    let mut all = Vec::from(definitions(room));
    all.extend([
        (
            maps::WATCHED,
            hash(size_of::<u32>(), size_of::<Watched>(), PROCESSES, 0),
        ),
        (
            maps::DEATHS,
            hash(size_of::<ProcessKey>(), size_of::<Death>(), PROCESSES, 0),
        ),
    ]);
    for (name, definition) in &mut all {
        definition.map_flags = 0;
        if *name == maps::ASIDE {
            // A process that opens this many afterwards is rare, and memory for all that it could open, 60 MB, is not.
            definition.max_entries = room.at_once.max(room.sockets / 4).min(room.sockets);
        }
    }
    all
}

fn hash(key: usize, value: usize, max_entries: u32, map_flags: u32) -> bpf_map_def {
    bpf_map_def {
        map_type: generated::bpf_map_type::BPF_MAP_TYPE_HASH as u32,
        key_size: key as u32,
        value_size: value as u32,
        max_entries,
        map_flags,
        id: 0,
        pinning: PinningType::None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::load::OBJECT;

    const ROOM: Room = Room {
        at_once: 7,
        sockets: 77,
    };

    fn object() -> aya_obj::Object {
        aya_obj::Object::parse(OBJECT).unwrap()
    }

    /// What a program was verified for is the map that it gets.
    #[test]
    fn they_are_what_the_object_says() {
        let object = object();
        for (name, large) in definitions(ROOM) {
            assert_eq!(large.map_flags, object.maps[name].map_flags(), "{name}");
            has_shape(&large, &object.maps[name]);
        }
        for (name, large) in preallocated(ROOM) {
            has_shape(&large, &object.maps[name]);
        }
        for name in [maps::WATCHED, maps::DEATHS] {
            assert_eq!(object.maps[name].max_entries(), PROCESSES, "{name}");
        }
    }

    fn has_shape(large: &bpf_map_def, said: &aya_obj::Map) {
        assert_eq!(
            (large.map_type, large.key_size, large.value_size),
            (said.map_type(), said.key_size(), said.value_size())
        );
    }

    #[test]
    fn no_map_is_left_that_allocates() {
        let object = object();
        let allocate = object
            .maps
            .iter()
            .filter(|(_, map)| map.map_flags() & generated::BPF_F_NO_PREALLOC != 0);
        let mut allocate: BTreeSet<&str> = allocate.map(|(name, _)| &**name).collect();
        assert_eq!(allocate.len(), 4);
        for (name, definition) in preallocated(ROOM) {
            assert_eq!(definition.map_flags, 0, "{name}");
            allocate.remove(name);
        }
        assert!(allocate.is_empty(), "{allocate:?}");
    }

    #[test]
    fn what_is_aside_has_memory_for_a_quarter_or_for_what_is_open() {
        let aside = |at_once, sockets| {
            let all = preallocated(Room { at_once, sockets });
            let aside = all.iter().find(|(name, _)| *name == maps::ASIDE);
            aside.unwrap().1.max_entries
        };
        assert_eq!(aside(4_100, 262_144), 65_536);
        assert_eq!(aside(100_000, 262_144), 100_000);
        assert_eq!(aside(4_100, 500), 500);
    }
}
