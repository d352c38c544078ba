//! What `sockleak free` has to say.

use std::fmt;

use jiff::Timestamp;
use sockleak_core::leftover::Removal;

/// What was destroyed, or would be, and what was not.
#[derive(Clone, Debug)]
pub struct Removals {
    /// Of the last look.
    pub time: Timestamp,
    pub subject: Subject,
    pub removals: Vec<Removal>,
    /// What else is to be known, as sentences.
    pub notes: Vec<String>,
}

/// Whose sockets they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Those with that local port.
    Port(u16),
    /// Those of a report.
    Report,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(formatter, "on port {port}"),
            Self::Report => formatter.write_str("of what the report has"),
        }
    }
}
