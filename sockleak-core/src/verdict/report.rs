//! The report: what a death left behind.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::expiry::Freedom;
use crate::incident::IncidentId;
use crate::observed::{BlindSpot, Death, Lost, Process, Protocol, Socket, State};
use crate::port::{Ephemeral, Restart};
use crate::verdict::socket_verdict::Verdict;

/// Everything there is to say about one death.
#[derive(Clone, Debug)]
pub struct Report {
    /// When sock_diag was read; outcomes, holders and free times hold at that moment.
    pub time: Timestamp,
    pub process: Process,
    /// `None` when the process is still alive and the user asked for a report.
    pub death: Option<Death>,
    /// What the death is part of; `None` while the process lives.
    pub incident: Option<IncidentId>,
    /// In the order of their descriptors.
    pub sockets: Vec<SocketReport>,
    pub summary: Summary,
    pub left_while_alive: Vec<LeftWhileAlive>,
    /// The destinations towards which leftovers hold ports, those first where connect() fails.
    pub ephemeral: Vec<Ephemeral>,
    /// What to change, what a restart needs first.
    pub advice: Vec<Advice>,
    /// What could not be seen, as sentences.
    pub blind: Vec<BlindSpot>,
    pub lost: Lost,
    /// One for each address and port that it listened on or was bound to.
    pub restart: Vec<Restart>,
    /// The single sockets behind `left_while_alive`.
    pub closed_alive: Vec<Leftover>,
}

#[derive(Clone, Debug)]
pub struct SocketReport {
    pub socket: Box<Socket>,
    pub outcome: Outcome,
    /// What sock_diag calls it now; `None` if it is gone.
    pub state: Option<State>,
    /// The cookie that sock_diag told; `None` if it is gone.
    pub seen_cookie: Option<u64>,
    pub why: Why,
    pub holders: Vec<Holder>,
    pub freedom: Freedom,
    /// What became of `socket.subflows`, in their order.
    pub subflows: Vec<Self>,
}

impl SocketReport {
    pub(crate) fn new(socket: Box<Socket>, verdict: Verdict) -> Self {
        let subflows = socket.subflows.iter().cloned().zip(verdict.subflows);
        Self {
            outcome: verdict.outcome,
            state: verdict.state,
            seen_cookie: verdict.seen_cookie,
            why: verdict.why,
            holders: verdict.holders,
            freedom: verdict.freedom,
            subflows: subflows
                .map(|(subflow, verdict)| Self::new(subflow.into(), verdict))
                .collect(),
            socket,
        }
    }
}

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
    /// More time-wait sockets than `tcp_max_tw_buckets`. Nothing tells it yet.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "free_rule")
)]
pub enum FreeRule {
    /// The 60 seconds of TIME_WAIT.
    TimewaitTimer,
    /// FIN_WAIT2 ends by `tcp_fin_timeout` or TCP_LINGER2, or becomes TIME_WAIT when the peer closes.
    FinTimeout,
    /// An MPTCP socket without a file waits a minute for its peer, whatever `net.mptcp.close_timeout` says
    /// (`mptcp_close_timeout`, net/mptcp/ctrl.c); its subflows are closed then.
    MptcpTimeout,
    /// The kernel gives up retransmitting (`tcp_orphan_retries`), if the peer does not answer before.
    Retransmits,
    /// A peer with a closed window keeps it alive.
    Persist,
    /// When its holder lets go.
    Holder,
    /// Its namespace has gone, and the leftover with it.
    NetnsGone,
    /// It is free already.
    Now,
    Unknown,
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

/// What the process closed or shut down itself while it was watched, and what still exists: one line for each
/// network namespace, local address, server port, remote and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftWhileAlive {
    /// Inode of their network namespace.
    pub netns: u32,
    pub laddr: IpAddr,
    /// The local port where many connections share it (a server's); `None` for ephemeral ports.
    pub lport: Option<u16>,
    pub raddr: Option<IpAddr>,
    /// The remote port where many connections share it (a client's); `None` for ephemeral ports.
    pub rport: Option<u16>,
    pub outcome: Outcome,
    pub count: u64,
    /// Theirs, ascending.
    pub cookies: Vec<u64>,
    pub last_closed: Timestamp,
    /// When the last of them is free; `None` where that cannot be told.
    pub free_at: Option<Timestamp>,
}

/// A leftover that is followed after the report until it is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The dead process.
    pub pid: u32,
    pub netns: u32,
    pub protocol: Protocol,
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    /// Every socket that sock_diag showed has one.
    pub cookie: u64,
    /// What sock_diag called it at the last look.
    pub state: State,
    /// When the kernel entered FIN_WAIT2, for a FIN_WAIT2 that is a full socket.
    pub fin_wait2_since: Option<Timestamp>,
    pub freedom: Freedom,
}
