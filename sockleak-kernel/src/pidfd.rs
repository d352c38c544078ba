//! pidfds: descriptors that become readable when a process is dead and its sockets are closed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Why there is no pidfd.
#[derive(Debug, thiserror::Error)]
pub enum PidfdError {
    #[error("there is no process {pid}")]
    NoSuchProcess { pid: u32 },
    #[error("{pid} is a thread, not a process; its process is `Tgid` in /proc/{pid}/status")]
    Thread { pid: u32 },
    #[error("cannot open a pidfd of process {pid}: {source}")]
    Io { pid: u32, source: io::Error },
}

/// Opens a pidfd, close-on-exec. It stays with that process even if its PID is reused.
///
/// # Errors
///
/// When there is no such process, or the number is that of a thread.
pub fn open(pid: u32) -> Result<OwnedFd, PidfdError> {
    // The kernel's PIDs end at 4,194,304 (PID_MAX_LIMIT), and it would call 0 an invalid argument.
    let number = libc::pid_t::try_from(pid)
        .ok()
        .filter(|number| *number > 0)
        .ok_or(PidfdError::NoSuchProcess { pid })?;
    // SAFETY: The call takes no pointers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
    if descriptor >= 0 {
        // SAFETY: The descriptor was just opened, and nothing else owns it.
        return Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) });
    }
    let source = io::Error::last_os_error();
    Err(match source.raw_os_error() {
        Some(libc::ESRCH) => PidfdError::NoSuchProcess { pid },
        // Later kernels say ENOENT where earlier ones said EINVAL (pidfd_prepare, kernel/fork.c).
        Some(libc::EINVAL | libc::ENOENT) => PidfdError::Thread { pid },
        _ => PidfdError::Io { pid, source },
    })
}

/// The whole process is dead, not only its first thread (`/proc/PID/stat` calls it a zombie in both cases).
#[must_use]
pub fn has_exited(pidfd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: The pointer is to one pollfd, which the kernel may write.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::{self, Command};
    use std::thread;

    use super::*;

    fn readable(fd: &OwnedFd, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: The pointer is to one live pollfd, as the count says.
        unsafe { libc::poll(&raw mut poll, 1, timeout_ms) == 1 }
    }

    #[test]
    fn becomes_readable_at_death() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let fd = open(child.id()).unwrap();
        assert!(!readable(&fd, 0));
        child.kill().unwrap();
        assert!(readable(&fd, 5000));
        child.wait().unwrap();
        assert!(matches!(open(child.id()), Err(PidfdError::NoSuchProcess { .. })));
    }

    #[test]
    fn refuses_what_is_no_process() {
        // SAFETY: The call takes no pointers.
        let thread = thread::spawn(|| open(unsafe { libc::gettid() }.cast_unsigned()));
        assert!(matches!(thread.join().unwrap(), Err(PidfdError::Thread { .. })));
        assert!(matches!(open(0), Err(PidfdError::NoSuchProcess { pid: 0 })));
        assert!(matches!(open(u32::MAX), Err(PidfdError::NoSuchProcess { .. })));
        assert!(open(process::id()).is_ok());
    }
}
