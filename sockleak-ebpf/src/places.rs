//! Where the record of a socket lies: at its address, or aside.

use sockleak_ebpf::{SOCKET_OVER, SocketKey, SocketRecord, Watched, counter};

use crate::maps::{ASIDE, BPF_NOEXIST, E2BIG, EEXIST, SOCKETS, WATCHED, count};
use crate::{filter, overflow};

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
