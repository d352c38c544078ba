//! A program that is stopped on its way, so that the world can change before it goes on.

use std::fs::File;
use std::io::{self, Error};
use std::mem;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::net::checked;
use crate::tracer::Tracer;

/// What PTRACE_O_TRACESYSGOOD adds to the signal of a stop at a system call.
const AT_SYSCALL: i32 = 0x80;

/// A sockleak whose first thread waits before it sends a netlink message. It goes on when this value ends.
pub struct Stopped {
    pid: libc::pid_t,
}

impl Stopped {
    /// Starts it and lets it run up to the first message of that type, which is not sent yet. The calling thread
    /// is its tracer from then on.
    #[track_caller]
    #[must_use]
    pub fn before_message(command: &mut Command, kind: u16) -> (Self, Tracer) {
        Self::after_messages(command, kind, 0)
    }

    /// The same for the message of that type that comes after so many others.
    #[track_caller]
    #[must_use]
    pub fn after_messages(command: &mut Command, kind: u16, mut others: usize) -> (Self, Tracer) {
        // SAFETY: ptrace is a system call that needs no lock and no memory.
        unsafe { command.pre_exec(|| trace(libc::PTRACE_TRACEME, 0, 0).map(drop)) };
        let tracer = Tracer::spawn(command);
        let pid = libc::pid_t::try_from(tracer.pid()).expect("process ids are positive");
        let stopped = Self { pid };
        // exec stops it for the first time.
        assert_eq!(stopped.wait().expect("it is our child"), libc::SIGTRAP);
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        trace(libc::PTRACE_SETOPTIONS, pid, options as usize).expect("it is stopped");
        let mut signal = 0;
        loop {
            trace(libc::PTRACE_SYSCALL, pid, signal as usize).expect("it is stopped");
            let stop = stopped.wait().expect("it does not end before");
            signal = if stop == libc::SIGTRAP | AT_SYSCALL {
                if stopped.sends().is_some_and(|sent| sent == kind) {
                    match others.checked_sub(1) {
                        None => return (stopped, tracer),
                        Some(left) => others = left,
                    }
                }
                0
            } else {
                stop
            };
        }
    }

    /// Waits for the next stop and tells its signal.
    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: The pointer is to a live integer, which the kernel writes.
        checked(unsafe { libc::waitpid(self.pid, &raw mut status, 0) })?;
        if libc::WIFSTOPPED(status) {
            Ok(libc::WSTOPSIG(status))
        } else {
            Err(Error::other("it has ended"))
        }
    }

    /// The type of the netlink message that it is about to send, if that is what it is about to do.
    fn sends(&self) -> Option<u16> {
        // SAFETY: All-zero is a valid ptrace_syscall_info.
        let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: The kernel writes at most `size` bytes into `info`, which outlives the call.
        let written = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                self.pid,
                size,
                (&raw mut info).cast::<libc::c_void>(),
            )
        };
        assert!(written > 0, "{}", Error::last_os_error());
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // SAFETY: `op` says that this is the entry of a system call.
        let entry = unsafe { info.u.entry };
        if i64::try_from(entry.nr) != Ok(libc::SYS_sendto) {
            return None;
        }
        let mut header = [0; 6];
        let memory = File::open(format!("/proc/{}/mem", self.pid)).expect("a tracer may read it");
        memory.read_exact_at(&mut header, entry.args[1]).ok()?;
        Some(u16::from_ne_bytes([header[4], header[5]]))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It fails when the process was killed meanwhile.
        let _ = trace(libc::PTRACE_DETACH, self.pid, 0);
    }
}

fn trace(request: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<libc::c_long> {
    // SAFETY: None of the requests that are made here uses memory of this process.
    let result = unsafe { libc::ptrace(request, pid, 0, data) };
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}
