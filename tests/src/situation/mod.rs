//! Random sockets on a port, and what `bind()` says to another one: what the verdicts are held against.
//!
//! A situation is a list of [`Step`]s, each of which makes a socket on the port and brings it into a state, so that
//! it can be made again on another port, and with steps left out. Nothing here shares code with sockleak.

mod binding;
mod crash;
mod draw;
mod make;
mod place;
mod random;
mod step;

pub use binding::{Answers, Binding, Device, Word, marks_reuseaddr};
pub use crash::Crash;
pub use draw::{asked, steps};
pub use make::Made;
pub use place::{Place, has_ipv6};
pub use random::Random;
pub use step::{Origin, Repair, State, Step};
