//! The subflows of an MPTCP socket: the TCP connections that carry it.
//!
//! A descriptor leads to the MPTCP socket only. Its subflows have states, cookies and time-waits of their
//! own, and most of what the kernel does to them runs in a worker.

use sockleak_ebpf::{MISSING, ORIGIN_SUBFLOW, SOCKET_SUBFLOWS, SocketKey};

use crate::fd_table::{self, Walk};
use crate::inventory::{self, Kept};
use crate::memory::read_or_zero;
use crate::offsets::*;
use crate::socket::IPPROTO_MPTCP;

/// The list changes while it is read, so it may lead anywhere. The path manager allows far fewer.
const MAX_SUBFLOWS: u32 = 128;

/// Where the walk stands in the list of subflows of one MPTCP socket.
#[repr(C)]
pub struct Subflows {
    /// `mptcp_sock.conn_list`.
    head: u64,
    /// The next `mptcp_subflow_context.node`; 0 when there is no list to read.
    node: u64,
    owner: SocketKey,
    /// Composed here, because the stack of a callback is short.
    key: SocketKey,
    left: u32,
    _pad: u32,
}

impl Subflows {
    /// Nothing is left to read.
    #[inline(always)]
    pub fn end(&mut self) {
        self.node = 0;
    }

    /// The next steps take the subflows of the socket that was recorded under `key`, if it is an MPTCP socket.
    #[inline(always)]
    pub fn begin(&mut self, key: &SocketKey, protocol: u16) {
        if MPTCP_CONN_LIST.load() == MISSING || protocol != IPPROTO_MPTCP {
            return;
        }
        self.head = key.sk + u64::from(MPTCP_CONN_LIST.load());
        self.node = read_or_zero(self.head, LIST_NEXT.load());
        self.owner = *key;
        self.key = *key;
        self.key.origin = ORIGIN_SUBFLOW;
        self.left = MAX_SUBFLOWS;
    }
}

/// Takes the next subflow of the MPTCP socket that the walk found last. Returns 0 if there is none.
///
/// [`SOCKET_SUBFLOWS`] is set where the list came back to its head: without it some are not recorded.
#[inline(always)]
pub fn subflow_step() -> u32 {
    let missing = MPTCP_CONN_LIST.load() == MISSING
        || SUBFLOW_NODE.load() == MISSING
        || SUBFLOW_TCP_SOCK.load() == MISSING;
    if missing { 0 } else { fd_table_subflow() }
}

/// A global function: see `fd_table`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fd_table_subflow() -> u32 {
    let Some(Walk { subflows, sk, .. }) = fd_table::current() else {
        return 0;
    };
    if subflows.node == 0 {
        return 0;
    }
    if subflows.node == subflows.head {
        subflows.end();
        inventory::mark(&subflows.owner, SOCKET_SUBFLOWS);
        return 1;
    }
    let context = subflows.node - u64::from(SUBFLOW_NODE.load());
    *sk = read_or_zero(context, SUBFLOW_TCP_SOCK.load());
    subflows.node = read_or_zero(subflows.node, LIST_NEXT.load());
    subflows.left -= 1;
    let read = fd_table::fd_table_read_socket() != 0;
    if let Some(walk) = fd_table::current()
        && !(read && keep(walk) && walk.subflows.left != 0)
    {
        walk.subflows.end();
    }
    1
}

/// Records the subflow that was read last. False if that failed.
#[inline(always)]
fn keep(walk: &mut Walk) -> bool {
    walk.subflows.key.sk = walk.sk;
    walk.record.msk = walk.subflows.owner.sk;
    inventory::keep(&walk.subflows.key, &mut walk.record) != Kept::No
}
