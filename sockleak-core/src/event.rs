//! What became of what was observed: what every reader of a trace gets, in order.

use std::sync::Arc;

use jiff::Timestamp;

use crate::incident::Incident;
use crate::leftover::Freed;
use crate::observed::{Loss, ProcessEvent, SocketTransition, Watching};
use crate::verdict::{Leftover, Report};

/// One thing that a reader is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything is attached.
    Watching(Watching),
    /// A watched process forked or became another program.
    Process(ProcessEvent),
    /// A watched process changed the state of one of its sockets itself.
    Transition(SocketTransition),
    /// A process died; its report follows.
    Death(Arc<Report>),
    /// What a death left behind.
    Report(Arc<Report>),
    /// What one look found in another state, or to be free at another moment, than was told before.
    Moved {
        time: Timestamp,
        leftovers: Vec<Leftover>,
    },
    /// What one look found to be free since the look before.
    Freed(Vec<Freed>),
    /// So many leftovers may not be looked at any more, and why: when they are free is not known.
    OutOfSight {
        netns: u32,
        leftovers: usize,
        why: String,
    },
    /// What happened to a family of processes.
    Incident(Incident),
    /// Something was lost since the last time.
    Lost(Loss),
}
