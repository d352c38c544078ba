//! An incident, as a reader gets it.

use jiff::Timestamp;
use serde::Serialize;

use super::id::IncidentId;
use crate::advice::Advice;
use crate::observed::Death;
use crate::port::Restart;
use crate::verdict::Summary;

/// An incident, as it stands.
#[derive(Clone, Debug)]
pub struct Incident {
    pub id: IncidentId,
    pub phase: Phase,
    /// When it stood so.
    pub time: Timestamp,
    /// The first death.
    pub opened: Timestamp,
    /// `None` while it may go on.
    pub closed: Option<Timestamp>,
    /// The one that died; all of them when it is closed, but for those that are only counted.
    pub processes: Vec<Part>,
    /// How many more died than are named when it is closed.
    pub unnamed: u64,
    /// The sockets of all of them until now, each once.
    pub summary: Summary,
    /// What a restart meets, as the report of that death says; when it is closed, by the latest report of each address and
    /// port.
    pub restart: Vec<Restart>,
    /// Of the same reports, the latest of each id.
    pub advice: Vec<Advice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "phase"))]
pub enum Phase {
    Opened,
    Changed,
    Closed,
}

/// The part that a process has in an incident.
#[derive(Clone, Debug)]
pub struct Part {
    pub pid: u32,
    pub comm: String,
    pub role: Role,
    /// `None` where the exit was not seen.
    pub death: Option<Death>,
    pub summary: Summary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "role"))]
pub enum Role {
    /// The first process of the family.
    Main,
    /// It descends from that one.
    Child,
}
