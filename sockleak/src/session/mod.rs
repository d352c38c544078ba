//! One trace: what the kernel says becomes observations. Nothing is printed here, and nothing decided.
//!
//! [`Live`] watches processes (`watch`), and collects the evidence of those that died (`collector`) from their records and
//! from snapshots of the kernel (`snapshots`). A [`Replay`] reads the observations of a trace that was recorded.

pub mod addressing;
mod collector;
mod evidence;
mod exec;
mod live;
mod look;
mod losses;
mod namespaces;
mod open_sockets;
mod pace;
mod processes;
mod replay;
mod same_destination;
mod snapshots;
mod target;
mod timers;
mod watch;

pub use live::{Live, Next, Settings};
pub use replay::Replay;
pub use target::Target;
pub use timers::End;
