//! The only door to the kernel.

pub mod btf;
pub mod clock;
pub mod fields;
pub mod netns;
pub mod pidfd;
pub mod preflight;
pub mod proc;
pub mod sock_diag;
pub mod spawn;
