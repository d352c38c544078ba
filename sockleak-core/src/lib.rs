//! The domain: what a dead process's sockets left behind, decided from what the kernel was seen to say.
//!
//! Pure and synchronous. Observations ([`observed`]) come in as [`verdict::Evidence`], a [`verdict::Report`] goes out by
//! [`verdict::examine`], and a [`leftover::Countdown`] follows what it leaves until it is free. Nothing here does I/O,
//! reads a clock or knows about BPF.

pub mod advice;
pub mod expiry;
pub mod leftover;
pub mod observed;
pub mod port;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
