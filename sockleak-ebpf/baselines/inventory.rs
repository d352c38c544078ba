//! What a baseline does with a socket that the walk found: nothing, or what one would do first.

use aya_ebpf::Global;
use sockleak_ebpf::{SocketKey, SocketRecord};

use crate::maps::{EVENTS, SOCKETS};

/// An element and a record are made for each socket. The verifier drops what it rules out.
#[unsafe(no_mangle)]
pub static STORES: Global<u8> = Global::new(0);

/// What became of a socket that a walk found.
pub enum Kept {
    New,
    /// This walk had found it already, which a baseline does not look for.
    #[expect(dead_code, reason = "the walk asks for it")]
    Before,
    /// There is no room.
    No,
}

/// Takes a socket.
#[inline(always)]
pub fn keep(key: &SocketKey, record: &mut SocketRecord) -> Kept {
    if STORES.load() == 0 {
        return Kept::New;
    }
    let sent = EVENTS.output::<SocketRecord>(&*record, 0);
    if SOCKETS.insert(key, &*record, 0).is_ok() && sent.is_ok() {
        Kept::New
    } else {
        Kept::No
    }
}

/// Sockets of a measured process have one descriptor each.
#[inline(always)]
pub fn add_fd(_key: &SocketKey, _fd: u32) {}

/// The same for MPTCP.
#[inline(always)]
pub fn mark(_key: &SocketKey, _flag: u8) {}
