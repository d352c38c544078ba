//! What a trace observes, in order. No verdict rests on anything else, and nothing else is recorded.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observed::{Evidence, Snapshot, State};

/// One thing that was observed.
#[derive(Clone, Debug)]
pub enum Observation {
    /// Every hook is attached.
    Began(Watching),
    /// A watched process changed.
    Process(ProcessEvent),
    /// A watched process changed the state of one of its sockets itself.
    Transition(SocketTransition),
    /// All that was seen of a death, once it has settled.
    Dead(Box<Evidence>),
    /// All that was seen of a process that lives at the end of the trace.
    Living(Box<Evidence>),
    /// Another look at a namespace in which something is left.
    Looked(Box<Snapshot>),
    /// Something was lost since the last time.
    Lost(Loss),
    /// The trace is over.
    Ended { time: Timestamp },
}

impl Observation {
    /// When it was observed.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Began(watching) => watching.time,
            Self::Process(event) => event.time,
            Self::Transition(transition) => transition.time,
            Self::Dead(evidence) | Self::Living(evidence) => evidence.time,
            Self::Looked(snapshot) => snapshot.time,
            Self::Lost(loss) => loss.time,
            Self::Ended { time } => *time,
        }
    }
}

/// What is watched, once every hook is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    pub time: Timestamp,
    /// The processes that are watched from the beginning, the targets first.
    pub processes: Vec<WatchedProcess>,
    /// What the targets have open; `None` where that may not be looked at.
    pub sockets: Option<OpenSockets>,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// The hooks that are attached.
    pub hooks: Vec<String>,
    /// CONFIG_HZ, for the slack of the timer wheel.
    pub hz: u32,
}

/// A process that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedProcess {
    pub pid: u32,
    /// 0 where it is not known.
    pub parent: u32,
    pub comm: String,
    /// The user gave it.
    pub target: bool,
}

/// How many sockets are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSockets {
    pub listeners: u64,
    /// TCP sockets that do not listen.
    pub connections: u64,
}

/// A watched process forked, became another program or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEvent {
    pub time: Timestamp,
    pub pid: u32,
    /// After an exec, the new one.
    pub comm: String,
    pub change: ProcessChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessChange {
    /// It has a child, which is watched too.
    Forked { child: u32 },
    /// It became another program.
    Executed,
    /// It died, and there is nothing to report of it.
    Ended,
}

/// A watched process changed the state of one of its sockets itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketTransition {
    pub time: Timestamp,
    pub pid: u32,
    pub comm: String,
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    pub from: State,
    pub to: State,
}

/// What was lost since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub time: Timestamp,
    /// Events that the programs could not send, or were skipped for.
    pub events: u64,
    /// Processes that are not followed. They are counted among the events, too.
    pub processes: u64,
}
