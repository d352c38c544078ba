//! How many descriptors a process may have.
//!
//! This one has the other ends of the connections of many tests at once. What it starts has the limits that it was started
//! with, as on the machine of a user.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use crate::net::checked;

/// What it was before it was raised.
static BEFORE: OnceLock<libc::rlimit> = OnceLock::new();

/// The hard limit of this process, up to which a victim raises its own.
#[must_use]
pub fn allowed() -> u64 {
    read().map_or(0, |limit| limit.rlim_max)
}

/// Raises the limit as far as this process may.
///
/// # Errors
/// When the kernel refuses.
pub fn allow_all() -> io::Result<()> {
    let limit = read()?;
    BEFORE.get_or_init(|| limit);
    set(libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    })
}

/// Lets a program start with the limit of before, or with a lower one that the command has already.
pub fn as_before(command: &mut Command) -> &mut Command {
    if let Some(before) = BEFORE.get() {
        let lower = || {
            let limit = read()?;
            set(libc::rlimit {
                rlim_cur: limit.rlim_cur.min(before.rlim_cur),
                ..limit
            })
        };
        // SAFETY: getrlimit and setrlimit are system calls that need no lock and no memory.
        unsafe { command.pre_exec(lower) };
    }
    command
}

/// Gives the calling thread, and those that it starts, a table of its own that has the standard streams alone. A program that
/// another test starts has for a moment what its table has: this thread's sockets are then none of those.
///
/// # Errors
/// Before 5.9, which has no `close_range`.
pub fn leave_the_others() -> io::Result<()> {
    // SAFETY: unshare takes an integer. From now on this thread closes its own copies alone.
    checked(unsafe { libc::unshare(libc::CLONE_FILES) })?;
    // SAFETY: The system call takes three integers. This thread owns none of the descriptors that it copied.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, libc::STDERR_FILENO + 1, u32::MAX, 0) };
    checked(i32::try_from(closed).expect("0 or -1")).map(drop)
}

fn read() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit, which outlives the call.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

fn set(limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: setrlimit reads one rlimit, which outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}
