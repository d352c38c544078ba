//! Waiting for descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for something that owns its descriptor (a pidfd, a ring) to become readable.
///
/// # Errors
/// When epoll refuses the descriptor.
pub fn readable<T: AsFd + AsRawFd + 'static>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: An owner that can lend its descriptor (`AsFd`) and borrows nothing keeps it open as long as it
    // lives, and gives the same one each time.
    unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }.map_err(io::Error::from)
}
