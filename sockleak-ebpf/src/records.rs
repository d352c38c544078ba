//! The records of the maps and of the ring buffer.

/// Who sent a signal, when, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SignalSent {
    /// When it was generated; 0 if none was.
    pub time: u64,
    /// Signal number.
    pub signal: u32,
    /// tgid of the sending process; 0 if the kernel sent it.
    pub sender: u32,
    /// `comm` of the sending thread, if a process sent it.
    pub sender_comm: [u8; 16],
}

/// A process that is followed. Value of `WATCHED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Watched {
    /// `start_boottime` of the thread-group leader, which tells a reused PID from this process.
    /// 0 for a process that user space put here: it holds a pidfd instead.
    pub start: u64,
    /// [`WATCHED_IO_URING`], [`WATCHED_SHARES_FILES`] and [`WATCHED_MANY_TABLES`].
    pub flags: u32,
    /// tgid of the process that forked this one; 0 if it was given by the user.
    pub parent: u32,
    /// The last SIGKILL.
    pub kill: SignalSent,
    /// The last signal whose default action dumps core, sent while that was its action.
    pub core: SignalSent,
    /// The last other signal whose default action ends the process, sent while that was its action.
    pub term: SignalSent,
    /// When a core-dumping signal was delivered that has no handler, that is when the dump began; 0 if never.
    pub dump_began: u64,
    /// That signal.
    pub dump_signal: u32,
    /// Part of the address of the fd table of the first thread that ended with the process; 0 before that.
    pub table: u32,
}

/// [`Watched::flags`]: a thread of the process that already exited had an io_uring.
pub const WATCHED_IO_URING: u32 = 1;
/// [`Watched::flags`]: it was made with CLONE_FILES and shares its parent's fd table.
pub const WATCHED_SHARES_FILES: u32 = 2;
/// [`Watched::flags`]: threads that ended with the process had different fd tables, of which one is walked.
pub const WATCHED_MANY_TABLES: u32 = 4;

/// A process, safe against PID reuse. Key of `DEATHS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProcessKey {
    /// `start_boottime` of the thread-group leader.
    pub start: u64,
    /// Process id.
    pub tgid: u32,
    /// Padding, always 0.
    pub _pad: u32,
}

/// How a process died. Value of `DEATHS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Death {
    /// The moment of `sched_process_exit`. The keys of the inventory carry it too.
    pub time: u64,
    /// `task_struct.exit_code` of the thread-group leader, encoded as a wait status.
    pub exit_code: u32,
    /// `signal_struct.group_exit_code`, encoded as a wait status.
    pub group_exit_code: u32,
    /// `signal_struct.flags`; [`SIGNAL_GROUP_EXIT`] says which of the two codes holds.
    pub signal_flags: u32,
    /// [`DEATH_OOM`] and [`DEATH_IO_URING`].
    pub flags: u32,
    /// `files_struct.count`: more than 1 when another process (or a thread that has not come here yet) shares the fd table.
    pub files_users: u32,
    /// Process id in the process's own PID namespace.
    pub ns_pid: u32,
    /// Sockets in the inventory.
    pub sockets: u32,
    /// Sockets that did not fit into the maps.
    pub not_recorded: u32,
    /// Open slots of the fd table that were not looked at.
    pub slots_skipped: u32,
    /// How long the walk over the fd table took, in nanoseconds.
    pub walk_ns: u32,
    /// `comm` of the thread-group leader.
    pub comm: [u8; 16],
    /// What was known of the process while it lived; its entry in `WATCHED` ends with it.
    pub watched: Watched,
}

/// `signal_struct.flags`: the group exit code holds (include/linux/sched/signal.h, equal from 5.10 to 7.3).
pub const SIGNAL_GROUP_EXIT: u32 = 0x4;
/// [`Death::flags`]: the OOM killer chose this process (`signal_struct.oom_mm` is set).
pub const DEATH_OOM: u32 = 1;
/// [`Death::flags`]: a thread of the process used io_uring, which can hold sockets that are in no fd table.
pub const DEATH_IO_URING: u32 = 2;

/// A socket that is followed for a process. Key of `ASIDE`; the record has it too.
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
    /// [`ORIGIN_INVENTORY`], [`ORIGIN_LIVE`] or [`ORIGIN_SUBFLOW`].
    pub origin: u32,
}

/// [`SocketKey::origin`]: the socket was in the fd table when its process died.
pub const ORIGIN_INVENTORY: u32 = 0;
/// [`SocketKey::origin`]: a living process closed or shut down the socket itself.
pub const ORIGIN_LIVE: u32 = 1;
/// [`SocketKey::origin`]: a TCP socket of an MPTCP socket of an inventory. It is in no fd table itself.
pub const ORIGIN_SUBFLOW: u32 = 2;

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

/// One change of state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StateChange {
    /// When.
    pub time: u64,
    /// Old state, as in include/net/tcp_states.h.
    pub from: u8,
    /// New state.
    pub to: u8,
    /// Padding, always 0.
    pub _pad: [u8; 6],
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

/// Bit `port % 64` of word `port / 64` says that this port is asked for. Value of `PORTS`.
pub type Ports = [u64; 1024];

/// A socket that has a local port, with all that `bind()` looks at.
///
/// Of a time-wait mini socket only what `struct sock_common` and `struct inet_timewait_sock` have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortRecord {
    /// Address of the `struct sock` or `struct inet_timewait_sock`.
    pub sk: u64,
    /// `skc_cookie`; 0 if none was generated yet.
    pub cookie: u64,
    /// Inode of the socket in sockfs; 0 for one that has no `struct socket`.
    pub inode: u64,
    /// Local address; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address; all zero without a peer.
    pub raddr: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u32,
    /// `skc_bound_dev_if`; 0 for none.
    pub device: u32,
    /// The uid that `bind()` compares for SO_REUSEPORT; [`NO_UID`] for a mini socket, of which it compares none.
    pub uid: u32,
    /// `fastuid` of the bind bucket.
    pub bucket_uid: u32,
    /// Local port (`skc_num`), which a socket has until it gives it back.
    pub lport: u16,
    /// Remote port; 0 without a peer.
    pub rport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_TCP` or `IPPROTO_MPTCP`.
    pub protocol: u16,
    /// `skc_state`, but for a mini socket `tw_substate`.
    pub state: u8,
    /// [`SOCKET_REUSE`], [`SOCKET_REUSEPORT`], [`SOCKET_V6ONLY`], [`PORT_MINI`] and [`PORT_BUCKET`].
    pub flags: u8,
    /// `fastreuse` of the bind bucket.
    pub fastreuse: i8,
    /// `fastreuseport` of the bind bucket: [`FASTREUSEPORT_ANY`], [`FASTREUSEPORT_STRICT`] or another number.
    pub fastreuseport: i8,
    /// `fast_rcv_saddr` of the bind bucket.
    pub fast_addr: [u8; 4],
    /// `fast_v6_rcv_saddr` of the bind bucket.
    pub fast_v6_addr: [u8; 16],
    /// `fast_sk_family` of the bind bucket, which says which of the two holds.
    pub fast_family: u16,
    /// `fast_ipv6_only` of the bind bucket.
    pub fast_v6only: u8,
    /// Padding, always 0.
    pub _pad: [u8; 5],
}

/// A descriptor that leads to a socket with a local port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortFileRecord {
    /// The socket.
    pub owner: PortRecord,
    /// Process id.
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
    /// `comm` of the thread-group leader.
    pub comm: [u8; 16],
}

/// [`PortRecord::flags`]: a time-wait mini socket.
pub const PORT_MINI: u8 = 64;
/// [`PortRecord::flags`]: the members of the bind bucket hold.
pub const PORT_BUCKET: u8 = 128;
/// [`PortRecord::uid`]: none.
pub const NO_UID: u32 = u32::MAX;
/// `FASTREUSEPORT_ANY` of include/net/inet_hashtables.h, equal from 5.10 to 7.3.
pub const FASTREUSEPORT_ANY: i8 = 1;
/// `FASTREUSEPORT_STRICT`, as above.
pub const FASTREUSEPORT_STRICT: i8 = 2;

/// What every event of the ring begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EventHeader {
    /// When.
    pub time: u64,
    /// One of the `EVENT_` constants.
    pub kind: u32,
    /// The watched process.
    pub tgid: u32,
}

/// A watched process forked: [`ForkEvent`].
pub const EVENT_FORK: u32 = 1;
/// A watched process became another program: [`ExecEvent`].
pub const EVENT_EXEC: u32 = 2;
/// A watched process is dead; `DEATHS` and `SOCKETS` tell the rest. The header is all.
pub const EVENT_DEATH: u32 = 3;
/// A watched process changed the state of one of its sockets itself: [`StateEvent`].
pub const EVENT_STATE: u32 = 4;

/// Event: a watched process (`header.tgid`) made a child, which is watched from its first instruction on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ForkEvent {
    /// Kind [`EVENT_FORK`].
    pub header: EventHeader,
    /// The child.
    pub child: u32,
    /// [`WATCHED_SHARES_FILES`] or 0.
    pub flags: u32,
}

/// Event: a watched process executes another program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ExecEvent {
    /// Kind [`EVENT_EXEC`].
    pub header: EventHeader,
    /// The new `comm`.
    pub comm: [u8; 16],
}

/// Event: LISTEN, SYN_SENT, FIN_WAIT1, LAST_ACK or the end of a listener, in the context of its living owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StateEvent {
    /// Kind [`EVENT_STATE`].
    pub header: EventHeader,
    /// Local address; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address.
    pub raddr: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u32,
    /// Local port; 0 at SYN_SENT, where the kernel has not chosen it yet.
    pub lport: u16,
    /// Remote port.
    pub rport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_TCP` or `IPPROTO_MPTCP`.
    pub protocol: u16,
    /// Old state.
    pub from: u8,
    /// New state.
    pub to: u8,
    /// Padding, always 0.
    pub _pad: [u8; 2],
}

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
    assert!(size_of::<SignalSent>() == 32);
    assert!(size_of::<Watched>() == 128);
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<Death>() == 192);
    assert!(size_of::<SocketKey>() == 24);
    assert!(size_of::<FdKey>() == 24);
    assert!(size_of::<StateChange>() == 16);
    assert!(size_of::<SocketRecord>() == 192);
    assert!(size_of::<PortRecord>() == 112);
    assert!(size_of::<PortFileRecord>() == 136);
    assert!(size_of::<EventHeader>() == 16);
    assert!(size_of::<ForkEvent>() == 24);
    assert!(size_of::<ExecEvent>() == 32);
    assert!(size_of::<StateEvent>() == 64);
};
