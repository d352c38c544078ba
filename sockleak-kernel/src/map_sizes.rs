//! How large the maps of the tracer are, and when they get their memory.

use aya::EbpfLoader;
use aya_obj::{Object, generated};
use sockleak_ebpf::maps;

/// For how many sockets there is room.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// For how many records memory is allocated at once.
    pub at_once: u32,
    /// How many sockets a process may have.
    pub sockets: u32,
}

impl Room {
    /// Tells the loader. `ASIDE` has memory for every entry where programs may not allocate any.
    pub fn set(self, loader: &mut EbpfLoader<'_>, allocates_entries: bool) {
        loader
            .map_max_entries(maps::SOCKETS, self.at_once.min(self.sockets))
            .map_max_entries(maps::ASIDE, self.aside(allocates_entries));
    }

    fn aside(self, allocates_entries: bool) -> u32 {
        if allocates_entries {
            return self.sockets;
        }
        // A process that opens this many afterwards is rare, and memory for all that it could open, 60 MB, is not.
        self.at_once.max(self.sockets / 4).min(self.sockets)
    }
}

/// Makes every hash map of the object one that has its memory from the beginning, for a kernel whose programs may not
/// allocate entries. aya takes the flags of a map from its definition in the object alone.
pub fn preallocate(object: &mut [u8]) -> Result<(), aya_obj::ParseError> {
    const ALLOCATES: u32 = generated::BPF_F_NO_PREALLOC;
    let parsed = Object::parse(object)?;
    let maps = parsed
        .maps
        .values()
        .filter(|map| map.map_flags() & ALLOCATES != 0);
    for map in maps {
        let definition = |flags| {
            // `struct bpf_map_def` begins with these.
            [
                map.map_type(),
                map.key_size(),
                map.value_size(),
                map.max_entries(),
                flags,
            ]
            .map(u32::to_ne_bytes)
        };
        let flags = map.map_flags();
        replace(
            object,
            definition(flags).as_flattened(),
            definition(flags & !ALLOCATES).as_flattened(),
        );
    }
    Ok(())
}

/// Definitions are aligned to four bytes, in the file as in their section.
fn replace(object: &mut [u8], from: &[u8], to: &[u8]) {
    for start in (0..=object.len().saturating_sub(from.len())).step_by(align_of::<u32>()) {
        let place = &mut object[start..start + from.len()];
        if place == from {
            place.copy_from_slice(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::object::OBJECT;

    type Shapes = BTreeMap<String, (u32, [u32; 4])>;

    /// The flags, and everything else.
    fn maps_of(object: &[u8]) -> Shapes {
        let maps = Object::parse(object).unwrap().maps;
        let maps = maps.into_iter().map(|(name, map)| {
            let shape = [
                map.map_type(),
                map.key_size(),
                map.value_size(),
                map.max_entries(),
            ];
            (name, (map.map_flags(), shape))
        });
        maps.collect()
    }

    #[test]
    fn no_map_is_left_that_allocates_and_nothing_else_changes() {
        let mut object = OBJECT.to_vec();
        preallocate(&mut object).unwrap();
        let mut expected = maps_of(OBJECT);
        let mut allocated = Vec::new();
        for (name, (flags, _)) in &mut expected {
            if *flags & generated::BPF_F_NO_PREALLOC != 0 {
                *flags &= !generated::BPF_F_NO_PREALLOC;
                allocated.push(name.clone());
            }
        }
        assert_eq!(
            allocated,
            [maps::ASIDE, maps::DEATHS, maps::EXTRA_FDS, maps::WATCHED]
        );
        assert_eq!(maps_of(&object), expected);
        let changed = OBJECT.iter().zip(&object).filter(|(old, new)| old != new);
        assert_eq!(changed.count(), allocated.len());
    }

    #[test]
    fn what_is_aside_has_memory_for_a_quarter_or_for_what_is_open() {
        let aside = |at_once, sockets| Room { at_once, sockets }.aside(false);
        assert_eq!(aside(4_100, 262_144), 65_536);
        assert_eq!(aside(100_000, 262_144), 100_000);
        assert_eq!(aside(4_100, 500), 500);
        let room = Room {
            at_once: 4_100,
            sockets: 262_144,
        };
        assert_eq!(room.aside(true), 262_144);
    }
}
