//! sockleak says what a crashed process left of its sockets, why, and when they are free again.
//!
//! ARCHITECTURE.md names the rooms: [`session`] observes, [`sinks`] hand on what that means, [`output`] prints, and
//! [`commands`] has one file for each verb. What is decided is in `sockleak-core`, and the only door to the kernel is
//! `sockleak-kernel`.

pub mod commands;
#[cfg(test)]
mod contract;
pub mod exit_status;
pub mod output;
pub mod session;
pub mod sinks;
