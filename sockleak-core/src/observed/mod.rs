//! What the kernel was seen to say: processes, deaths, sockets, and one look at a namespace.

mod blind_spot;
mod death;
mod evidence;
mod local_ports;
mod observation;
pub(crate) mod packed_time;
mod process;
mod snapshot;
mod socket;
mod state;

pub use blind_spot::BlindSpot;
pub use death::{Cause, Death, Exit, Sender, SignalSent, signal_name};
pub use evidence::{Evidence, Lost};
pub use local_ports::{LocalPorts, TwReuse};
pub use observation::{
    Loss, Observation, OpenSockets, ProcessChange, ProcessEvent, SocketTransition, WatchedProcess, Watching,
};
pub use process::{Process, ProcessId};
pub use snapshot::{Holding, Overflow, PortFile, Relation, Scope, Sighting, Snapshot, TcpTimeouts, Timer};
pub use socket::{Family, Linger, Origin, Protocol, ResetReason, ResetReceived, ResetSent, Socket, SocketId};
pub use state::{State, Transition};
