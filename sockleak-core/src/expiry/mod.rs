//! When the kernel frees what is left.

mod answer;
mod free_rule;
mod freedom;
mod last_free;
mod probes;
pub(crate) mod retransmission;
mod span;
pub(crate) mod time_wait;
pub(crate) mod wheel;

pub use free_rule::{EarlierBy, FreeRule};
pub use freedom::Freedom;
pub use last_free::LastFree;
