//! All that was seen of one process: what a report is made from.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observed::{BlindSpot, Death, Holding, Process, Snapshot, Socket};

/// All that was seen of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// When sock_diag was read last; the report holds at that moment.
    pub time: Timestamp,
    pub process: Process,
    /// `None` while the process lives.
    pub death: Option<Death>,
    /// The inventory: the sockets of its fd table when it died ([`super::Origin::Inventory`]).
    pub sockets: Vec<Box<Socket>>,
    /// What it closed or shut down itself while it was watched ([`super::Origin::Live`]).
    pub closed_alive: Vec<Box<Socket>>,
    /// One look at each namespace that any of these sockets is in.
    #[serde(skip)]
    pub snapshots: Vec<Snapshot>,
    /// The descriptors of other processes that lead to any of these sockets.
    pub holdings: Vec<Holding>,
    /// Living processes whose descriptors could not be read.
    pub unreadable: usize,
    /// A thread of the process used io_uring.
    pub io_uring: bool,
    /// What could not be seen.
    pub blind: Vec<BlindSpot>,
    pub lost: Lost,
    /// CONFIG_HZ, for the slack of the timer wheel.
    pub hz: u32,
}

/// What was lost, as counts. All zero in a complete report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "report_losses")
)]
pub struct Lost {
    /// Events of the whole tracer since the death: failed reserves and recursion misses.
    pub events: u64,
    /// Sockets that did not fit into the inventory.
    pub inventory: u64,
    /// Open slots of the fd table that were not looked at.
    pub slots: u64,
}
