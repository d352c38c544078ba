//! Whether a port can be had: `bind()` as a pure function, who is in the way, and which ports are left.

mod bind;
pub(crate) mod ephemeral;
pub(crate) mod local_ports;
mod occupant;
mod port_report;
pub(crate) mod restart;

pub use bind::{Answer, Bucket, PortOwner, Request, Reuse, SharedAddress, in_the_way};
pub use ephemeral::{Destinations, Ephemeral, Return};
pub use local_ports::{LocalPorts, TwReuse};
pub use occupant::{Occupant, occupants};
pub use port_report::{PortEvidence, PortHolder, PortReport, PortSocket};
pub use restart::{BindVerdict, Blocker, BlockingProcess, Endpoint, Obstacle, Restart};
