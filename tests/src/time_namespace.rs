//! Time namespaces: processes whose clocks since the boot show another time.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::net::checked;

/// CLONE_NEWTIME of include/uapi/linux/sched.h.
const CLONE_NEWTIME: libc::c_int = 0x80;
const OFFSETS: &CStr = c"/proc/self/timens_offsets";

/// The kernel has them (5.6 and later, CONFIG_TIME_NS).
#[must_use]
pub fn is_there() -> bool {
    OFFSETS.to_str().is_ok_and(|path| Path::new(path).exists())
}

/// Lets the command run in a new time namespace, whose boot time is so many seconds ahead.
pub fn move_ahead(command: &mut Command, seconds: i64) {
    let offsets = CString::new(format!("boottime {seconds} 0")).expect("no NUL");
    // SAFETY: Between fork and exec it makes system calls only, on memory that was prepared before.
    unsafe { command.pre_exec(move || enter(&offsets)) };
}

/// Lets the command, which may have been moved already, have children in a new time namespace. Since 6.3 exec() moves the
/// process too.
pub fn move_children(command: &mut Command) {
    // SAFETY: As above.
    unsafe { command.pre_exec(|| checked(libc::unshare(CLONE_NEWTIME)).map(drop)) };
}

/// exec() moves a process into the time namespace of its children.
#[must_use]
pub fn exec_moves() -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "test /proc/$$/ns/time -ef /proc/$$/ns/time_for_children"]);
    move_children(&mut command);
    command.status().expect("a shell").success()
}

/// Only the first process of a time namespace can set its clocks, before it is there.
fn enter(offsets: &CStr) -> io::Result<()> {
    // SAFETY: unshare takes an integer; it changes the namespace of the children.
    checked(unsafe { libc::unshare(CLONE_NEWTIME) })?;
    let file = open(OFFSETS, libc::O_WRONLY)?;
    let text = offsets.to_bytes();
    // SAFETY: The pointer and the length are those of a slice that outlives the call.
    let written = unsafe { libc::write(file.as_raw_fd(), text.as_ptr().cast(), text.len()) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    let namespace = open(c"/proc/self/ns/time_for_children", libc::O_RDONLY)?;
    // SAFETY: setns takes two integers; the process has one thread.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), CLONE_NEWTIME) }).map(drop)
}

fn open(path: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: The path ends with NUL and outlives the call.
    let file = checked(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}
