//! Processes whose number is chosen, as it comes to be again after `pid_max` others.

use std::io;

/// `struct clone_args` of include/uapi/linux/sched.h, as 5.5 has it, when `set_tid` came.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// Forks a child with that number; 0 in the child.
///
/// # Safety
/// As fork(): in the child of a process that has other threads, only what is safe in a signal handler.
///
/// # Errors
/// EEXIST while somebody has the number, EPERM without the privilege.
pub unsafe fn fork_as(pid: i32) -> io::Result<i32> {
    let arguments = CloneArguments {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: (&raw const pid).addr() as u64,
        set_tid_size: 1,
        ..CloneArguments::default()
    };
    // SAFETY: The structure and the number outlive the call; without a stack it behaves as fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(pid).map_err(io::Error::other)
}

/// Whether a process can be given the number of one that has just died.
#[must_use]
pub fn is_possible() -> bool {
    // SAFETY: The children end at once, by _exit.
    unsafe {
        let first = libc::fork();
        if first == 0 {
            libc::_exit(0);
        }
        let again = |pid| {
            let child = fork_as(pid).ok()?;
            if child == 0 {
                libc::_exit(0);
            }
            Some(child)
        };
        is_reaped(first) && again(first).is_some_and(|pid| pid == first && is_reaped(pid))
    }
}

fn is_reaped(pid: i32) -> bool {
    // SAFETY: A null pointer is allowed and means that the status is not wanted.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) == pid }
}
