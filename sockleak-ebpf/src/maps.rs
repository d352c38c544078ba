//! The maps, and what they cost.
//!
//! An empty hash map costs its bucket array, 16 bytes a bucket, as many buckets as entries, which also takes time to make:
//! half a millisecond for 65,536. `SOCKETS` is preallocated, with room for every descriptor that is open when the tracing
//! begins and for some thousands more, because an allocation takes as long as everything else that a walk does to a
//! socket. The others allocate each entry when it is made. User space puts `SOCKETS`, `ASIDE` and `EXTRA_FDS` of its own in
//! the places of these, of the size that is wanted. A record takes 48 + 8 + 160 bytes in `SOCKETS`; in `ASIDE` they are 48 +
//! 24 + 160, which with the allocator's pointer fit into the 256 of a slab object.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use sockleak_ebpf::{
    Bitmap, Death, FdKey, ProcessKey, SOCKET_OVER, SocketKey, SocketRecord, Watched, counter,
};

use crate::fd_table::Walk;
use crate::{filter, overflow};

pub const BPF_NOEXIST: u64 = 1;
pub const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

#[map]
pub static WATCHED: HashMap<u32, Watched> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
pub static DEATHS: HashMap<ProcessKey, Death> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
pub static SOCKETS: HashMap<u64, SocketRecord> = HashMap::with_max_entries(4096, 0);

#[map]
pub static ASIDE: HashMap<SocketKey, SocketRecord> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

#[map]
pub static EXTRA_FDS: HashMap<FdKey, u8> =
    HashMap::with_max_entries(sockleak_ebpf::maps::EXTRA_FDS_SIZE, BPF_F_NO_PREALLOC);

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
pub static PORTS: Array<Bitmap> = Array::with_max_entries(1, 0);

/// As large, and set in the same way.
#[map]
pub static INODES: Array<Bitmap> = Array::with_max_entries(1, 0);

/// What is known of this process, if it is watched.
#[inline(always)]
pub fn watched(tgid: u32) -> Option<*mut Watched> {
    if !filter::may_be_watched(tgid) {
        return None;
    }
    WATCHED.get_ptr_mut(tgid)
}

/// The first record of this address.
#[inline(always)]
fn first(sk: u64) -> Option<&'static mut SocketRecord> {
    let record = SOCKETS.get_ptr_mut(sk).or_else(|| overflow::find(sk))?;
    // SAFETY: The entry was found just now: it stays memory of its map while this program runs. The kernel changes one
    // socket's state from one CPU at a time, and what the other hooks write are single bytes.
    Some(unsafe { &mut *record })
}

/// The record that the changes of the socket at this address go to.
#[inline(always)]
pub fn followed(sk: u64) -> Option<&'static mut SocketRecord> {
    if !filter::may_be_followed(sk) {
        return None;
    }
    first(sk).filter(|record| record.flags & SOCKET_OVER == 0)
}

/// Begins to follow a socket: in `SOCKETS`, or aside if another record is there already. Fails with [`EEXIST`] if
/// the socket has a record of this key.
#[inline(always)]
pub fn insert(key: &SocketKey, record: &mut SocketRecord) -> Result<(), i32> {
    record.belongs_to(key);
    filter::will_be_followed(key.sk);
    match take_place(key.sk, record) {
        Err(EEXIST) => {}
        done => return done,
    }
    // Whoever came first keeps the place: of two walks that find the same socket at once neither takes the other's.
    if first(key.sk).is_some_and(|first| first.key(key.sk) == *key) {
        return Err(EEXIST);
    }
    put_aside(key, record, BPF_NOEXIST)
}

/// Makes it the first record of the address. Fails with [`EEXIST`] if there is one.
#[inline(always)]
fn take_place(sk: u64, record: &SocketRecord) -> Result<(), i32> {
    match SOCKETS.insert(sk, record, BPF_NOEXIST) {
        Err(E2BIG) => overflow::insert(sk, record),
        // There was no room when that record came.
        Ok(()) if overflow::find(sk).is_some() => {
            let _ = SOCKETS.remove(sk);
            Err(EEXIST)
        }
        done => done,
    }
}

#[inline(always)]
fn put_aside(key: &SocketKey, record: &SocketRecord, flags: u64) -> Result<(), i32> {
    ASIDE.insert(key, record, flags)?;
    // After the record is there and before its old place is given up, so that nobody misses it in both.
    count(counter::ASIDE);
    Ok(())
}

/// The record of this key.
#[inline(always)]
pub fn record(key: &SocketKey) -> Option<&'static mut SocketRecord> {
    if let Some(record) = first(key.sk)
        && record.key(key.sk) == *key
    {
        return Some(record);
    }
    // SAFETY: As in `first`.
    ASIDE.get_ptr_mut(key).map(|record| unsafe { &mut *record })
}

/// Another socket has this address now. The record is kept, and follows nobody any more.
#[inline(always)]
pub fn set_aside(sk: u64, record: &mut SocketRecord) {
    let key = record.key(sk);
    if put_aside(&key, record, 0).is_ok() {
        if SOCKETS.remove(sk).is_err() {
            overflow::remove(&key);
        }
    } else {
        // Nothing is lost but the place.
        record.flags |= SOCKET_OVER;
    }
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
