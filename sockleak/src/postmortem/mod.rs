//! The domain: what a dead process's sockets left behind, decided from what the kernel was seen to say.
//!
//! Pure and synchronous. Observations ([`Process`], [`Exit`], [`Socket`], [`Sighting`], [`Holding`]) come in as
//! [`Evidence`], a [`Report`] goes out by [`examine`], and a [`Countdown`] follows what it leaves until it is
//! free. Nothing here does I/O, reads a clock or knows about BPF.

mod advice;
mod bind;
mod countdown;
mod death;
mod discard;
mod ephemeral;
mod examine;
mod freedom;
mod hazard;
mod join;
mod left_while_alive;
mod local_ports;
mod moment;
mod mptcp;
mod observation;
mod occupant;
mod overflow;
mod port;
mod process;
mod removal;
mod report;
mod restart;
mod retransmission;
mod settle;
mod side;
mod socket;
mod state;
#[cfg(test)]
pub(crate) mod testing;
mod verdict;
mod wheel;

pub use advice::{Advice, Fact, Words};
pub use bind::{Answer, Bucket, PortOwner, Request, Reuse, SharedAddress, in_the_way};
pub use countdown::{Countdown, Freed, Look, followers};
pub use death::{Cause, Death, Exit, Sender, SignalSent, signal_name};
pub use discard::{Discard, DiscardRule};
pub use ephemeral::{Destinations, Ephemeral, Return};
pub use examine::{Evidence, examine};
pub use freedom::Freedom;
pub use hazard::{Danger, Hazard};
pub use local_ports::{LocalPorts, TwReuse};
pub use observation::{Holding, PortFile, Relation, Sighting, Snapshot, Timer};
pub use occupant::{Occupant, occupants};
pub use overflow::Overflow;
pub use port::{PortEvidence, PortHolder, PortReport, PortSocket};
pub use process::Process;
pub use removal::{Action, Asked, Attempt, Power, Powers, Reason, Recorded, Removable, Removal};
pub use report::{
    Follower, FreeRule, Holder, How, LeftWhileAlive, Lost, Outcome, Report, SocketReport, Summary, Why,
};
pub use restart::{BindVerdict, Endpoint, Obstacle, Restart};
pub use settle::settled;
pub use side::{Side, Sides};
pub use socket::{Family, Linger, Origin, Protocol, ResetReason, ResetReceived, Socket, SocketId};
pub use state::{State, Transition};
