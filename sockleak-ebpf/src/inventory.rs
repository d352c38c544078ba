//! Where a walk puts what it found.

use sockleak_ebpf::{FdKey, SocketKey, SocketRecord, counter};

use crate::maps::{EEXIST, EXTRA_FDS, count};
use crate::places::{insert, record};

/// What became of a socket that a walk found.
pub enum Kept {
    New,
    /// This walk had found it already.
    Before,
    /// The maps are full.
    No,
}

/// Records a socket, and follows it from now on.
#[inline(always)]
pub fn keep(key: &SocketKey, record: &mut SocketRecord) -> Kept {
    match insert(key, record) {
        Ok(()) => Kept::New,
        Err(EEXIST) => Kept::Before,
        Err(_) => Kept::No,
    }
}

/// Adds a descriptor to a recorded socket.
#[inline(always)]
pub fn add_fd(key: &SocketKey, fd: u32) {
    if let Some(record) = record(key) {
        record.fd_count += 1;
    }
    let key = FdKey {
        sk: key.sk,
        time: key.time,
        tgid: key.tgid,
        fd,
    };
    count(counter::EXTRA_FDS);
    let _ = EXTRA_FDS.insert(key, 1, 0);
}

/// Sets a bit of the flags of a recorded socket.
#[inline(always)]
pub fn mark(key: &SocketKey, flag: u8) {
    if let Some(record) = record(key) {
        record.flags |= flag;
    }
}
