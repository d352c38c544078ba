//! The domain: what a dead process's sockets left behind, decided from what the kernel was seen to say.
//!
//! Pure and synchronous. Observations ([`Process`], [`Death`], [`Socket`], [`Sighting`], [`Holding`])
//! come in, a [`Report`] goes out. Nothing here does I/O, reads a clock or knows about BPF.

mod death;
mod observation;
mod process;
mod report;
mod socket;
mod state;
mod wheel;

pub use death::{Cause, Death, Sender};
pub use observation::{Holding, Relation, Sighting, Snapshot, Timer};
pub use process::Process;
pub use report::{
    Follower, FreeRule, Freedom, Holder, How, LeftWhileAlive, Lost, Outcome, Report, SocketReport, Summary,
    Why,
};
pub use socket::{Family, Linger, Origin, Protocol, ResetReceived, Socket, SocketId};
pub use state::{State, Transition};
pub use wheel::slack;
