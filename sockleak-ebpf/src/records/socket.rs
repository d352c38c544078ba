//! Sockets that are followed.

/// A socket that is followed for a process. Key of `ASIDE`, where it may also be [`SocketKey::place`]; the record has it
/// too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SocketKey {
    /// Address of the `struct sock`. The slab reuses it within milliseconds: alone it identifies nothing.
    pub sk: u64,
    /// [`Death::time`] for a socket of an inventory and its subflows; else the moment of the first transition
    /// that was followed.
    pub time: u64,
    /// Process id of the owner.
    pub tgid: u32,
    /// [`ORIGIN_INVENTORY`], [`ORIGIN_LIVE`] or [`ORIGIN_SUBFLOW`]; in `ASIDE` [`ORIGIN_PLACE`] too.
    pub origin: u32,
}

impl SocketKey {
    /// The key of the place that the first record of this address has in `ASIDE` when `SOCKETS` is full, whosever it is.
    #[must_use]
    #[inline(always)]
    pub const fn place(sk: u64) -> Self {
        Self {
            sk,
            time: 0,
            tgid: 0,
            origin: ORIGIN_PLACE,
        }
    }
}

/// [`SocketKey::origin`]: the socket was in the fd table when its process died.
pub const ORIGIN_INVENTORY: u32 = 0;
/// [`SocketKey::origin`]: a living process closed or shut down the socket itself.
pub const ORIGIN_LIVE: u32 = 1;
/// [`SocketKey::origin`]: a TCP socket of an MPTCP socket of an inventory. It is in no fd table itself.
pub const ORIGIN_SUBFLOW: u32 = 2;
/// [`SocketKey::origin`]: no socket's, but that of [`SocketKey::place`].
pub const ORIGIN_PLACE: u32 = 3;

/// A further descriptor of a socket of an inventory. Key of `EXTRA_FDS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FdKey {
    /// The fields of [`SocketKey`]: `sk`, `time`, `tgid`.
    pub sk: u64,
    /// See [`SocketKey::time`].
    pub time: u64,
    /// See [`SocketKey::tgid`].
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
}

/// One change of state: nanoseconds since [`SocketRecord::time`], which take 56 bits (two years), and of four bits each the
/// old state and the new one, as in include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct StateChange(pub u64);

impl StateChange {
    /// A change so many nanoseconds after [`SocketRecord::time`].
    #[must_use]
    #[inline(always)]
    pub const fn new(after: u64, from: u8, to: u8) -> Self {
        Self(after << 8 | (from as u64 & 0xf) << 4 | to as u64 & 0xf)
    }

    /// Nanoseconds since [`SocketRecord::time`].
    #[must_use]
    #[inline(always)]
    pub const fn after(self) -> u64 {
        self.0 >> 8
    }

    /// The old state.
    #[must_use]
    #[inline(always)]
    pub const fn from(self) -> u8 {
        (self.0 >> 4) as u8 & 0xf
    }

    /// The new state.
    #[must_use]
    #[inline(always)]
    pub const fn to(self) -> u8 {
        self.0 as u8 & 0xf
    }
}

/// How many changes of state a [`SocketRecord`] keeps. After a death there are at most three
/// (FIN_WAIT1, FIN_WAIT2 or CLOSING, CLOSE); after a shutdown() they are spread over two records.
pub const STATE_CHANGES: usize = 4;

/// A socket, and what happened to it since it is followed. Value of `SOCKETS` and of `ASIDE`.
///
/// The first part holds at the moment of `time`; `changes` and `reset_*` are added later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SocketRecord {
    /// See [`SocketKey::time`].
    pub time: u64,
    /// See [`SocketKey::tgid`].
    pub tgid: u32,
    /// See [`SocketKey::origin`].
    pub origin: u32,
    /// Local address; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address; all zero without a peer.
    pub raddr: [u8; 16],
    /// `skc_cookie`; 0 if none was generated yet.
    pub cookie: u64,
    /// Inode of the socket in sockfs, as in `/proc/PID/fd`; 0 if unknown.
    pub inode: u64,
    /// Address of the MPTCP socket of [`ORIGIN_SUBFLOW`]; 0 for every other.
    pub msk: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Local port.
    pub lport: u16,
    /// Remote port.
    pub rport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_TCP` or `IPPROTO_MPTCP`.
    pub protocol: u16,
    /// Its first descriptor in the table; [`NO_FD`] for all but [`ORIGIN_INVENTORY`].
    pub fd: u32,
    /// How many descriptors of this table lead to it.
    pub fd_count: u32,
    /// References to its `struct file`, as a count (1 means one); 0 if unknown.
    pub references: u32,
    /// `rcv_nxt - copied_seq`: bytes not read, plus one for a FIN that was received and not read.
    pub unread: u32,
    /// `write_seq - snd_una`: bytes not acknowledged.
    pub unacked: u32,
    /// `sk_ack_backlog` of a listener: connections that were never accepted.
    pub accept_queue: u32,
    /// SO_LINGER (`sk_lingertime`) in jiffies; [`NO_LINGER`] if it is off.
    pub linger: u32,
    /// `tcp_sock.linger2` in jiffies: negative if TCP_LINGER2 is negative, 0 for the default.
    pub linger2: i32,
    /// Effective uid of whoever made the socket (`sk_uid`).
    pub uid: u32,
    /// `skc_bound_dev_if`: index of the device that it is bound to; 0 for none.
    pub device: u32,
    /// State at that moment.
    pub state: u8,
    /// `sk_shutdown`: 1 receiving, 2 sending.
    pub shutdown: u8,
    /// [`SOCKET_REUSE`] and the other `SOCKET_` bits.
    pub flags: u8,
    /// How many of `changes` hold; [`STATE_CHANGES`] + 1 if there were more.
    pub change_count: u8,
    /// 1 if an RST was sent for it.
    pub reset_sent: u8,
    /// `enum sk_rst_reason` of that RST; 0 where the kernel gives none.
    pub reset_reason: u8,
    /// 1 if `tcp_receive_reset` fired for it.
    pub reset_received: u8,
    /// State of the socket when `tcp_receive_reset` fired.
    pub reset_received_in: u8,
    /// Padding, always 0.
    pub _pad: [u8; 4],
    /// Its changes of state, in order.
    pub changes: [StateChange; STATE_CHANGES],
}

impl SocketRecord {
    /// The key of the record of the socket at this address.
    #[must_use]
    #[inline(always)]
    pub const fn key(&self, sk: u64) -> SocketKey {
        SocketKey {
            sk,
            time: self.time,
            tgid: self.tgid,
            origin: self.origin,
        }
    }

    /// Gives the record to the process of this key.
    #[inline(always)]
    pub const fn belongs_to(&mut self, key: &SocketKey) {
        self.time = key.time;
        self.tgid = key.tgid;
        self.origin = key.origin;
    }
}

/// [`SocketRecord::fd`]: not found in a table.
pub const NO_FD: u32 = u32::MAX;
/// [`SocketRecord::linger`]: SO_LINGER is off.
pub const NO_LINGER: u32 = u32::MAX;
/// [`SocketRecord::flags`]: SO_REUSEADDR.
pub const SOCKET_REUSE: u8 = 1;
/// [`SocketRecord::flags`]: SO_REUSEPORT.
pub const SOCKET_REUSEPORT: u8 = 2;
/// [`SocketRecord::flags`]: IPV6_V6ONLY.
pub const SOCKET_V6ONLY: u8 = 4;
/// [`SocketRecord::flags`]: TCP_REPAIR is on.
pub const SOCKET_REPAIR: u8 = 8;
/// [`SocketRecord::flags`]: `sk_err` is ECONNRESET.
pub const SOCKET_ERR_RESET: u8 = 16;
/// [`SocketRecord::flags`]: an MPTCP socket every subflow of which is recorded too.
pub const SOCKET_SUBFLOWS: u8 = 32;

/// [`SocketRecord::flags`]: another socket has its address, and the record could not be set aside.
pub const SOCKET_OVER: u8 = 64;
/// [`SocketRecord::flags`]: it may have an address that is not local (IP_FREEBIND, IP_TRANSPARENT).
pub const SOCKET_NONLOCAL: u8 = 128;

/// States of include/net/tcp_states.h that the programs test for.
pub mod state {
    /// TCP_ESTABLISHED.
    pub const ESTABLISHED: u8 = 1;
    /// TCP_SYN_SENT.
    pub const SYN_SENT: u8 = 2;
    /// TCP_SYN_RECV.
    pub const SYN_RECV: u8 = 3;
    /// TCP_FIN_WAIT1.
    pub const FIN_WAIT1: u8 = 4;
    /// TCP_TIME_WAIT.
    pub const TIME_WAIT: u8 = 6;
    /// TCP_CLOSE.
    pub const CLOSE: u8 = 7;
    /// TCP_LAST_ACK.
    pub const LAST_ACK: u8 = 9;
    /// TCP_LISTEN.
    pub const LISTEN: u8 = 10;
    /// TCP_NEW_SYN_RECV.
    pub const NEW_SYN_RECV: u8 = 12;
}

const _: () = {
    assert!(size_of::<SocketKey>() == 24);
    assert!(size_of::<FdKey>() == 24);
    assert!(size_of::<StateChange>() == 8);
    assert!(size_of::<SocketRecord>() == 168);
};
