//! When the kernel frees what is left.

pub(crate) mod freedom;
pub(crate) mod retransmission;
pub(crate) mod wheel;

pub use freedom::Freedom;
