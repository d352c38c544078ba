//! The records of the maps and of the ring buffer.

mod event;
mod port;
mod process;
mod socket;

pub use event::*;
pub use port::*;
pub use process::*;
pub use socket::*;
