//! Reading a whole hash map, thousands of entries a system call. aya asks for one entry at a time.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// `BPF_MAP_LOOKUP_BATCH` of include/uapi/linux/bpf.h; hash maps have it since 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries at a time. The kernel refuses a batch that is smaller than a bucket, and a bucket has hardly ever more than
/// ten entries.
const ENTRIES: usize = 1024;

/// The `batch` member of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Visits every entry of a hash map once. Entries that come or go meanwhile are visited or not, the others always:
/// the kernel goes from bucket to bucket (`__htab_map_lookup_and_delete_batch`, kernel/bpf/hashtab.c), where asking
/// for one key after the other begins anew when the last one is gone.
///
/// `K` and `V` are the sizes of the map's keys and values in bytes.
///
/// # Errors
/// What the kernel says.
pub fn visit<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    let mut keys = vec![[0; K]; ENTRIES];
    let mut values = vec![[0; V]; ENTRIES];
    // Where the kernel goes on: the index of a bucket, which only it reads.
    let (mut position, mut next) = (0_u32, 0_u32);
    let mut begun = false;
    loop {
        let mut batch = Batch {
            in_batch: if begun { address(&mut position) } else { 0 },
            out_batch: address(&mut next),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: ENTRIES as u32,
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..Batch::default()
        };
        let done = match lookup(&mut batch) {
            Ok(()) => false,
            // The end: `count` entries came before it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = batch.count as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            each(key, value);
        }
        if done {
            return Ok(());
        }
        (position, begun) = (next, true);
    }
}

fn address<T>(place: *mut T) -> u64 {
    place.expose_provenance() as u64
}

fn lookup(batch: &mut Batch) -> io::Result<()> {
    // SAFETY: `batch` has the layout and the size that the command asks for, and its addresses are of buffers that
    // live in the caller, are borrowed by nobody else and have room for `count` keys and values of the map's sizes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            ptr::from_mut(batch),
            size_of::<Batch>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
