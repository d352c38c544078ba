//! First records of their addresses for which `SOCKETS` has no room: they have a place in `ASIDE`.
//!
//! All of it is out of line, since nothing of it is done before `SOCKETS` was full once. A step of a walk is the seventh
//! frame of the eight that a verifier allows, so nothing here calls another function.

use core::cell::UnsafeCell;
use core::ptr;

use sockleak_ebpf::{SocketKey, SocketRecord, counter};

use crate::maps::{ASIDE, BPF_NOEXIST, count};

/// Whether there was ever such a record.
struct Used(UnsafeCell<u8>);

// SAFETY: It is one byte, and only the value 1 is ever written.
unsafe impl Sync for Used {}

static USED: Used = Used(UnsafeCell::new(0));

/// The record that has the place of this address.
#[inline(always)]
pub fn find(sk: u64) -> Option<*mut SocketRecord> {
    // SAFETY: The byte is shared by the kernel's programs, so that it is read as it is in memory.
    if unsafe { USED.0.get().read_volatile() } == 0 {
        return None;
    }
    let record = look_up(sk);
    (!record.is_null()).then_some(record)
}

/// Null if there is none.
#[inline(never)]
fn look_up(sk: u64) -> *mut SocketRecord {
    ASIDE.get_ptr_mut(SocketKey::place(sk)).unwrap_or(ptr::null_mut())
}

/// Puts a record there. Fails with `EEXIST` if another one has the place.
#[inline(never)]
pub fn insert(sk: u64, record: &SocketRecord) -> Result<(), i32> {
    // SAFETY: As in `find`. Both come before the record, so that nobody misses it.
    unsafe { USED.0.get().write_volatile(1) };
    count(counter::OVERFLOWN);
    ASIDE.insert(SocketKey::place(sk), record, BPF_NOEXIST)
}

/// The record of this key has another place of `ASIDE` by now, and gives up this one.
#[inline(never)]
pub fn remove(key: &SocketKey) {
    let place = SocketKey::place(key.sk);
    let record = ASIDE.get_ptr(place);
    // SAFETY: A record that was found stays memory of the map while this program runs.
    if record.is_some_and(|record| unsafe { (*record).key(key.sk) } == *key) {
        count(counter::MOVED);
        let _ = ASIDE.remove(place);
    }
}
