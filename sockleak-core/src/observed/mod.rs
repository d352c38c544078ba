//! What the kernel was seen to say: processes, deaths, sockets, and one look at a namespace.

mod blind_spot;
mod death;
pub(crate) mod moment;
mod observation;
mod process;
mod socket;
mod state;

pub use blind_spot::BlindSpot;
pub use death::{Cause, Death, Exit, Sender, SignalSent, signal_name};
pub use observation::{Holding, PortFile, Relation, Sighting, Snapshot, Timer};
pub use process::Process;
pub use socket::{Family, Linger, Origin, Protocol, ResetReason, ResetReceived, Socket, SocketId};
pub use state::{State, Transition};
