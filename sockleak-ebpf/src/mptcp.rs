//! The subflows of an MPTCP socket: the TCP connections that carry it.
//!
//! A descriptor leads to the MPTCP socket only. Its subflows have states, cookies and time-waits of their
//! own, and most of what the kernel does to them runs in a worker.

use sockleak_ebpf::{MISSING, SOCKET_SUBFLOWS, SocketKey};

use crate::inventory;
use crate::memory::read_or_zero;
use crate::offsets::*;
use crate::socket::IPPROTO_MPTCP;

/// The list changes while it is read, so it may lead anywhere. The path manager allows far fewer.
const MAX_SUBFLOWS: u32 = 128;

/// The socket that has the port of this one: of an MPTCP socket its first subflow, whose address and options `bind()`
/// looks at (`mptcp_bind`, net/mptcp/protocol.c), as long as it has one.
#[inline(always)]
pub fn port_owner(sk: u64, protocol: u16) -> u64 {
    if protocol != IPPROTO_MPTCP {
        return sk;
    }
    let first: u64 = read_or_zero(sk, MPTCP_FIRST.load());
    if first == 0 { sk } else { first }
}

/// Where the walk stands in the list of subflows of one MPTCP socket.
#[repr(C)]
pub struct Subflows {
    /// `mptcp_sock.conn_list`.
    head: u64,
    /// The next `mptcp_subflow_context.node`; 0 when there is no list to read.
    node: u64,
    owner: SocketKey,
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
        self.left = MAX_SUBFLOWS;
    }

    /// The address of the MPTCP socket.
    #[inline(always)]
    pub fn owner(&self) -> u64 {
        self.owner.sk
    }

    /// Whether there is a list that was not read to its end.
    #[inline(always)]
    pub fn has_next(&self) -> bool {
        let missing = MPTCP_CONN_LIST.load() == MISSING
            || SUBFLOW_NODE.load() == MISSING
            || SUBFLOW_TCP_SOCK.load() == MISSING;
        !missing && self.node != 0
    }

    /// The address of the next subflow; none at the end of the list.
    ///
    /// [`SOCKET_SUBFLOWS`] is set where the list came back to its head: without it some are not recorded.
    #[inline(always)]
    pub fn next(&mut self) -> Option<u64> {
        if self.node == self.head {
            self.end();
            inventory::mark(&self.owner, SOCKET_SUBFLOWS);
            return None;
        }
        if self.left == 0 {
            self.end();
            return None;
        }
        self.left -= 1;
        let context = self.node - u64::from(SUBFLOW_NODE.load());
        self.node = read_or_zero(self.node, LIST_NEXT.load());
        Some(read_or_zero(context, SUBFLOW_TCP_SOCK.load()))
    }
}
