//! The terminal, if there is one.

use std::io::{IsTerminal as _, stderr};
use std::mem::MaybeUninit;

/// Columns of the terminal that stderr is; `None` if it is none.
#[must_use]
pub fn stderr_width() -> Option<usize> {
    stderr()
        .is_terminal()
        .then(|| width(libc::STDERR_FILENO).unwrap_or(80))
}

/// Columns of the terminal that stdout is; `None` if it is none.
#[must_use]
pub fn stdout_width() -> Option<usize> {
    width(libc::STDOUT_FILENO)
}

fn width(fd: i32) -> Option<usize> {
    let mut size = MaybeUninit::<libc::winsize>::uninit();
    // SAFETY: The pointer is to a winsize that the kernel may write.
    let status = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, size.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY: The call succeeded, so the kernel has written it.
    let columns = unsafe { size.assume_init() }.ws_col;
    (columns > 0).then_some(usize::from(columns))
}

/// SIGHUP is ignored, as nohup(1) sets it: the process is to outlive its terminal.
#[must_use]
pub fn ignores_hangup() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: Nothing is set, and the pointer is to an action that the call may write.
    let status = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: If the call succeeded, it has written the action.
    status == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// This process and its children get the signals of the terminal's keys.
#[must_use]
pub fn is_foreground() -> bool {
    // SAFETY: The calls take no pointers.
    unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() }
}
