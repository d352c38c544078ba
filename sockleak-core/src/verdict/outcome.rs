//! What became of a socket, why, and who has it.

use serde::{Deserialize, Serialize};

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "outcome")
)]
pub enum Outcome {
    /// A file refers to it still.
    Held,
    TimeWait,
    FinWait2,
    FinWait1,
    Closing,
    LastAck,
    /// An RST ended it, sent by either side.
    Reset,
    /// Gone without RST and without leftover.
    Closed,
    Unknown,
}

/// Why it became that: the first that applies, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "why"))]
pub enum Why {
    /// A process that shares an ancestor with the dead one has it, by fork.
    Inherited,
    /// A process received it: it got the descriptor while it lived.
    PassedOn,
    /// A process made with CLONE_FILES uses the same fd table.
    SharedTable,
    /// No process has a descriptor of it, and the kernel holds it still: it is in flight over a unix socket, or
    /// registered with io_uring.
    InKernel,
    /// SO_LINGER 0: closed by an RST.
    LingerZero,
    /// Closed with data that the process had not read: the kernel sends an RST.
    UnreadData,
    /// The peer sent an RST.
    PeerReset,
    /// The peer sent data after the close: the kernel answers with an RST.
    DataAfterClose,
    /// TCP_LINGER2 is negative: an RST takes the place of FIN_WAIT2.
    Linger2,
    /// More orphans than `tcp_max_orphans`, or more memory than `tcp_mem`.
    OrphanLimit,
    /// More time-wait sockets than `tcp_max_tw_buckets`.
    TimeWaitOverflow,
    /// TCP_REPAIR: closed silently.
    Repair,
    /// The peer did not acknowledge what was retransmitted.
    PeerUnreachable,
    /// It was a listener.
    Listener,
    /// It never had a connection.
    NeverConnected,
    /// Its connection had ended before the process died.
    EndedBefore,
    /// The peer had closed its side: the FIN_WAIT states and TIME_WAIT are the peer's.
    PeerClosedFirst,
    /// The process had called shutdown() for sending.
    ShutdownBefore,
    /// The kernel closed it with the process.
    ClosedByKernel,
    /// Its network namespace could not be looked into.
    NetnsUnreachable,
    /// It cannot be told.
    Unknown,
}

/// A process that still holds the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub comm: String,
    pub fd: u32,
    /// `None` if it was not seen how it came by the descriptor.
    pub how: Option<How>,
}

/// How a holder came by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "how"))]
pub enum How {
    Inherited,
    Received,
    SharedTable,
}

/// Sockets by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "summary")
)]
pub struct Summary {
    pub time_wait: u64,
    pub fin_wait2: u64,
    pub fin_wait1: u64,
    pub closing: u64,
    pub last_ack: u64,
    pub reset: u64,
    pub closed: u64,
    pub held: u64,
    pub unknown: u64,
}
