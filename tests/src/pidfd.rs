//! Processes by pidfd, which cannot come to mean another process as a number can.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::limit::limit;

/// A process that a victim started and that must not outlive the test.
pub struct Pidfd(OwnedFd);

impl Pidfd {
    pub fn open(pid: u32) -> io::Result<Self> {
        Self::descriptor(pid).map(Self)
    }

    /// The bare descriptor.
    fn descriptor(pid: u32) -> io::Result<OwnedFd> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).expect("a descriptor fits into an int");
        // SAFETY: The call has just made this descriptor, and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Ends the process and waits for its end.
    pub fn kill(&self) {
        // SAFETY: A null siginfo is allowed and means what kill() would send.
        unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                libc::SIGKILL,
                none,
                0,
            );
        }
        let mut readable = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = i32::try_from(limit().as_millis()).unwrap_or(i32::MAX);
        // SAFETY: The pointer is to one pollfd, which outlives the call.
        unsafe { libc::poll(&raw mut readable, 1, milliseconds) };
    }
}

impl Drop for Pidfd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process (or, negated, to a process group) that the caller started and has not yet
/// waited for, so the number is still its own.
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A copy of another process's descriptor.
///
/// # Errors
/// `ENOSYS` before 5.6, `EPERM` where ptrace would not be allowed.
pub fn take_descriptor(pid: u32, fd: RawFd) -> io::Result<OwnedFd> {
    let process = Pidfd::descriptor(pid)?;
    // SAFETY: pidfd_getfd takes three integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).expect("a descriptor fits into an int");
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel lets a process take the descriptors of another one.
#[must_use]
pub fn can_take_descriptors() -> bool {
    take_descriptor(std::process::id(), libc::STDERR_FILENO).is_ok()
}
