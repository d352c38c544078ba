//! What `sockleak free` has to say.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use sockleak_core::leftover::Removal;

use super::notice::RECORDING_CUT;

/// What was destroyed, or would be, and what was not.
#[derive(Clone, Debug)]
pub struct Removals {
    /// Of the last look.
    pub time: Timestamp,
    pub subject: Subject,
    pub removals: Vec<Removal>,
    /// What else is to be known.
    pub notes: Vec<Note>,
}

/// Something that is to be known of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// What the kernel can destroy could not be tried, and why.
    PowersUntried(String),
    /// The recording was cut, so that there may have been more.
    Cut,
    /// Nobody can be named who holds a socket: there is no /proc.
    HoldersUnnamed,
    /// The descriptors of so many processes may not be read.
    HoldersUnreadable { processes: usize },
    /// So many leftovers are in the report by their number only: with these local ports, or towards these addresses from
    /// ports that it does not tell. A port of 0 is not told either.
    Counted {
        leftovers: u64,
        ports: BTreeSet<u16>,
        destinations: BTreeSet<SocketAddr>,
    },
}

/// So many commands are named.
const NAMED: usize = 5;

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowersUntried(why) => {
                write!(
                    formatter,
                    "what this kernel can destroy could not be tried: {why}"
                )
            }
            Self::Cut => formatter.write_str(RECORDING_CUT),
            Self::HoldersUnnamed => {
                formatter.write_str("without /proc nobody can be named who holds a socket")
            }
            Self::HoldersUnreadable { processes } => write!(
                formatter,
                "processes whose descriptors may not be read: {processes}; one of them may hold what nobody is seen to hold"
            ),
            Self::Counted {
                leftovers,
                ports,
                destinations,
            } => {
                let ports = ports
                    .iter()
                    .map(|port| format!("`sockleak free {port}` frees them"));
                let towards = destinations.iter().map(|remote| {
                    let ip = remote.ip();
                    let whole = match remote.port() {
                        0 => ip.to_string(),
                        _ => remote.to_string(),
                    };
                    format!("`ss -tan dst {whole}` lists their ports, and `sockleak free PORT` frees each")
                });
                let commands: Vec<String> = ports.chain(towards).take(NAMED).collect();
                write!(
                    formatter,
                    "{leftovers} leftovers that the process had closed while it lived are in the report by their number \
                     only; {}",
                    commands.join("; ")
                )
            }
        }
    }
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
