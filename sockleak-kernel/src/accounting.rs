//! What the kernel accounts to BPF programs.

use std::io;
use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

/// Lets the kernel count the runs of each BPF program and their time, as long as this descriptor is open.
///
/// # Errors
/// When the kernel refuses it.
pub fn enable() -> io::Result<OwnedFd> {
    enable_stats(Stats::RunTime).map_err(|error| error.io_error)
}
