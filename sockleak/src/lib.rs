//! sockleak says what a crashed process left of its sockets, why, and when they are free again.
//!
//! ARCHITECTURE.md names the rooms: [`kernel`] is the only door to the kernel, [`postmortem`] decides
//! and does no I/O, [`output`] prints, and [`commands`] has one file for each verb.

pub mod commands;
pub mod kernel;
pub mod output;
pub mod postmortem;
