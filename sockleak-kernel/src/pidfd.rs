//! pidfds: descriptors that become readable when a process is dead and its sockets are closed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

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
    exits_within(pidfd, Duration::ZERO)
}

/// The same, at the latest after that time.
#[must_use]
pub fn exits_within(pidfd: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: The pointer is to one pollfd, which the kernel may write.
    unsafe { libc::poll(&raw mut poll, 1, limit) == 1 }
}

/// Interrupts the process, as Ctrl-C does.
///
/// # Errors
/// When it was reaped, or belongs to another user.
pub fn interrupt(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: A null pointer stands for the information of kill(2).
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGINT,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{self, Command};
    use std::thread;

    use super::*;

    #[test]
    fn becomes_readable_at_death() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let fd = open(child.id()).unwrap();
        assert!(!has_exited(fd.as_fd()));
        interrupt(fd.as_fd()).unwrap();
        assert!(exits_within(fd.as_fd(), Duration::from_secs(5)));
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
        assert!(interrupt(fd.as_fd()).is_err());
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
