//! The domain: what a dead process's sockets left behind, decided from what the kernel was seen to say.
//!
//! Pure and synchronous. An [`examiner::Examiner`] takes what was observed ([`observed::Observation`]) and makes
//! [`event::Event`]s of it: a [`verdict::Report`] for each death, the [`incident::Incident`] that it belongs to, and what
//! a [`leftover::Countdown`] sees of its leftovers until they are free. Nothing here does I/O, reads a clock or knows
//! about BPF.

pub mod advice;
pub mod event;
pub mod examiner;
pub mod expiry;
pub mod incident;
pub mod leftover;
pub mod observed;
pub mod port;
pub mod recording;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verdict;
