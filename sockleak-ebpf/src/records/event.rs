//! What is sent through the ring.

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

const _: () = {
    assert!(size_of::<EventHeader>() == 16);
    assert!(size_of::<ForkEvent>() == 24);
    assert!(size_of::<ExecEvent>() == 32);
    assert!(size_of::<StateEvent>() == 64);
};
