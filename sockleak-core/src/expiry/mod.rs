//! When the kernel frees what is left.

mod free_rule;
pub(crate) mod freedom;
pub(crate) mod retransmission;
pub(crate) mod wheel;

pub use free_rule::FreeRule;
pub use freedom::Freedom;
