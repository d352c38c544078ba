//! A process that has the sockets of situations, and dies.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::net::checked;
use crate::pidfd;

use super::Made;

/// A child that alone has the sockets of their own; the peers are with the caller.
pub struct Crash {
    pid: i32,
    _peers: Vec<OwnedFd>,
}

impl Crash {
    /// Hands the sockets to a child.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn begin(made: Vec<Made>) -> io::Result<Self> {
        let (own, peers): (Vec<_>, Vec<_>) = made.into_iter().map(|made| (made.own, made.peers)).unzip();
        let peers: Vec<OwnedFd> = peers.into_iter().flatten().collect();
        let unwanted: Vec<RawFd> = peers.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: The child makes system calls only, until its end.
        let pid = checked(unsafe { libc::fork() })?;
        if pid == 0 {
            wait_for_the_end(&unwanted);
        }
        drop(own);
        Ok(Self { pid, _peers: peers })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Kills it, and waits until it has closed everything.
    ///
    /// # Panics
    /// When it is dead already.
    pub fn kill(&self) {
        pidfd::signal(self.pid, libc::SIGKILL).expect("it lives");
        // SAFETY: A null pointer is allowed and means that the status is not wanted.
        let reaped = checked(unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) });
        reaped.expect("it is a child");
    }
}

/// Makes system calls only: other threads of the parent may have had any lock.
fn wait_for_the_end(unwanted: &[RawFd]) -> ! {
    // SAFETY: prctl takes integers here.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    for fd in unwanted {
        // SAFETY: The child never uses the descriptors of the peers.
        unsafe { libc::close(*fd) };
    }
    loop {
        // SAFETY: pause takes nothing.
        unsafe { libc::pause() };
    }
}
