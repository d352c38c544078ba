//! The only door to the kernel.

pub mod btf;
pub mod fields;
