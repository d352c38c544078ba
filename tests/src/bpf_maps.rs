//! The BPF maps of another process, as the kernel has them.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::{fs, io};

use crate::{fdinfo, pidfd};

/// `enum bpf_cmd` and `enum bpf_map_type` of include/uapi/linux/bpf.h.
const GET_NEXT_KEY: libc::c_int = 4;
const HASH: &str = "1";

/// How many entries each hash map has that a process has open, by the map's id.
pub fn entries(pid: u32) -> BTreeMap<u32, usize> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    let mut entries = BTreeMap::new();
    for entry in descriptors.flatten() {
        let fd = entry.file_name().to_string_lossy().into_owned();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        if fdinfo::value(&info, "map_type") != Some(HASH) {
            continue;
        }
        let number = |name| -> u32 {
            let value = fdinfo::value(&info, name).expect("a map has it");
            value.parse().expect("a number")
        };
        let fd = fd.parse().expect("a descriptor");
        let map = pidfd::take_descriptor(pid, fd).expect("root may copy it");
        entries.insert(number("map_id"), count(&map, number("key_size") as usize));
    }
    entries
}

/// Walks over the keys. An entry that is removed meanwhile makes the walk begin again (`htab_map_get_next_key`,
/// kernel/bpf/hashtab.c), so that it is an upper bound then.
fn count(map: &OwnedFd, key_size: usize) -> usize {
    /// The part of `union bpf_attr` that the command reads.
    #[repr(C)]
    struct Next {
        map: u32,
        _pad: u32,
        key: u64,
        next: u64,
    }
    let (mut key, mut next) = (vec![0_u8; key_size], vec![0_u8; key_size]);
    let mut count = 0;
    loop {
        let attr = Next {
            map: map.as_raw_fd().cast_unsigned(),
            _pad: 0,
            key: if count == 0 { 0 } else { key.as_ptr() as u64 },
            next: next.as_mut_ptr() as u64,
        };
        // SAFETY: The attribute has the layout that the command wants, and both keys have the map's size.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, GET_NEXT_KEY, &raw const attr, size_of::<Next>()) };
        if result != 0 {
            // Anything else would pass for a small map.
            let error = io::Error::last_os_error();
            assert_eq!(
                error.raw_os_error(),
                Some(libc::ENOENT),
                "after {count} keys: {error}"
            );
            return count;
        }
        count += 1;
        std::mem::swap(&mut key, &mut next);
    }
}
