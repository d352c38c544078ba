//! What is left of a socket after the report.

use std::net::SocketAddr;

use jiff::Timestamp;

use crate::expiry::Freedom;
use crate::observed::{Protocol, State};

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
