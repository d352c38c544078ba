//! The maps, and what they cost.
//!
//! An empty hash map costs its bucket array, 16 bytes a bucket, as many buckets as entries, which also takes time to make:
//! half a millisecond for 65,536. `SOCKETS` is preallocated, with room for every descriptor that is open when the tracing
//! begins and for some thousands more, because an allocation takes as long as everything else that a walk does to a
//! socket. The others allocate each entry when it is made, except on kernels where programs may not do that: there the
//! loader has all of them preallocated. It also sets the sizes of `SOCKETS`, `ASIDE` and `EVENTS`, and the others keep theirs
//! (sockleak-kernel/src/map_sizes.rs and load.rs). A record takes 48 + 8 + 160 bytes in `SOCKETS`; in `ASIDE` they are 48 +
//! 24 + 160, which with the allocator's pointer fit into the 256 of a slab object.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use sockleak_ebpf::{Bitmap, Death, FdKey, ProcessKey, SocketKey, SocketRecord, Watched, counter};

pub const BPF_NOEXIST: u64 = 1;
pub const EEXIST: i32 = -17;
pub const E2BIG: i32 = -7;

#[map]
pub static WATCHED: HashMap<u32, Watched> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
pub static DEATHS: HashMap<ProcessKey, Death> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
pub static SOCKETS: HashMap<u64, SocketRecord> = HashMap::with_max_entries(4096, 0);

#[map]
pub static ASIDE: HashMap<SocketKey, SocketRecord> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

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

/// 8 KiB, which one call of user space sets.
#[map]
pub static PORTS: Array<Bitmap> = Array::with_max_entries(1, 0);

/// As large, and set in the same way.
#[map]
pub static INODES: Array<Bitmap> = Array::with_max_entries(1, 0);

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
