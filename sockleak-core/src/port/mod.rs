//! Whether a port can be had: `bind()` as a pure function, who is in the way, and which ports are left.

mod addressing;
mod bind;
mod ephemeral;
pub(crate) mod ephemeral_count;
pub(crate) mod local_ports;
mod occupant;
mod port_report;
mod restart;
pub(crate) mod restart_decision;

pub use addressing::{Addressing, Device, LocalAddress, Refusal};
pub use bind::{Answer, Bucket, PortOwner, Request, Reuse, SharedAddress, Tried, in_the_way};
pub use ephemeral::{Ephemeral, Return};
pub use ephemeral_count::Destinations;
pub use occupant::{Occupant, occupants};
pub use port_report::{PortEvidence, PortHolder, PortReport, PortSocket};
pub use restart::{BindVerdict, Blocker, BlockingProcess, Endpoint, Obstacle, Restart};
