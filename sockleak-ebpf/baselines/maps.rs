//! The maps of the baselines.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use sockleak_ebpf::{SocketKey, SocketRecord};

use crate::fd_table::Walk;

/// The processes whose tables are walked over.
#[map]
pub static WATCHED: HashMap<u32, u8> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Where nothing is ever found, with as many buckets as that of sockleak has for a small process.
#[map]
pub static FOLLOWED: HashMap<u64, u64> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);

/// How many sockets all walks found.
#[map]
pub static FOUND: Array<u32> = Array::with_max_entries(1, 0);

#[map]
pub static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// An element for each socket.
#[map]
pub static SOCKETS: HashMap<SocketKey, SocketRecord> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// A record for each socket: so large that those of 20,000 fit, since nobody takes them out.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
