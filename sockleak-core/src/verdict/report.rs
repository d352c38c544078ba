//! The report: what a death left behind.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::advice::Advice;
use crate::expiry::{Freedom, LastFree};
use crate::incident::IncidentId;
use crate::observed::{BlindSpot, Death, Lost, Process, Socket, State};
use crate::port::{Ephemeral, Restart};
use crate::verdict::socket_verdict::Verdict;
use crate::verdict::{Holder, Leftover, Outcome, Summary, Why};

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
    /// What could not be seen.
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
    /// When the last of them is free.
    pub last_free: LastFree,
}
