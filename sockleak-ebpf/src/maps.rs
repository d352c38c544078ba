//! The maps, and what they cost.
//!
//! The hash maps are not preallocated: an empty one costs its bucket array (16 bytes a bucket, as
//! many buckets as entries), and each entry is allocated when it is made. User space sets the sizes
//! of `SOCKETS` and `FOLLOWED` before the load. At 262,144 sockets: 2 x 4 MiB of buckets, and
//! 48 + 24 + 176 and 48 + 8 + 24 bytes for each socket that is there.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use sockleak_ebpf::{Death, FdKey, Ports, ProcessKey, SocketKey, SocketRecord, Watched, counter};

use crate::fd_table::Walk;

#[map]
pub static WATCHED: HashMap<u32, Watched> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

#[map]
pub static DEATHS: HashMap<ProcessKey, Death> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

#[map]
pub static SOCKETS: HashMap<SocketKey, SocketRecord> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

#[map]
pub static FOLLOWED: HashMap<u64, SocketKey> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

#[map]
pub static EXTRA_FDS: HashMap<FdKey, u8> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// 16,384 events of 64 bytes. Deaths send one event each, so only a living process's own closes fill it.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Where `inet_sock_set_state` composes a record that is too large for the stack beside its event. Only
/// changes that run in process context use it, and no two of them run on one CPU at a time.
#[map]
pub static COMPOSED: PerCpuArray<SocketRecord> = PerCpuArray::with_max_entries(1, 0);

/// Where `sched_process_exit` composes the record of a death, for the same reason.
#[map]
pub static DYING: PerCpuArray<Death> = PerCpuArray::with_max_entries(1, 0);

/// The walk over the fd table of a dying process.
#[map]
pub static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// 8 KiB, which one call of user space sets.
#[map]
pub static PORTS: Array<Ports> = Array::with_max_entries(1, 0);

/// The record that follows the socket at this address now, and its key.
#[inline(always)]
pub fn followed(sk: u64) -> Option<(SocketKey, &'static mut SocketRecord)> {
    // SAFETY: The entry was found just now and is not preallocated: it stays readable in this program.
    let key = unsafe { *FOLLOWED.get_ptr(sk)? };
    // SAFETY: As above. The kernel changes one socket's state from one CPU at a time, and what the other hooks
    // write are single bytes.
    let record = unsafe { &mut *SOCKETS.get_ptr_mut(key)? };
    Some((key, record))
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's element of a map that lives as long as the program.
        unsafe { *counter += 1 };
    }
}

/// Sends an event; one that does not fit is counted.
#[inline(always)]
pub fn send<T: 'static>(event: T) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => count(counter::EVENTS_LOST),
    }
}
