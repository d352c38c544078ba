//! From the PIDs that the user gave to processes that can be followed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Result, anyhow, bail};
use sockleak_core::observed::Process;
use sockleak_kernel::{pidfd, proc};

/// A process that exists, and a pidfd that stays with it.
pub struct Target {
    pub process: Process,
    pub parent: u32,
    pub pidfd: OwnedFd,
    start_ticks: u64,
}

impl Target {
    /// Finds a process by its PID.
    ///
    /// # Errors
    /// When there is none, when it is dead already, a thread or a kernel thread.
    pub fn find(pid: u32, by_user: bool) -> Result<Self> {
        // The pidfd comes first: what /proc says afterwards is about the same process or about none.
        let pidfd = pidfd::open(pid).map_err(|error| match error {
            pidfd::PidfdError::NoSuchProcess { pid } => {
                anyhow!("there is no process {pid}; list processes with: ps -e -o pid,comm")
            }
            error => error.into(),
        })?;
        let gone = |error: io::Error| gone(pid, pidfd.as_fd(), &error);
        let stat = proc::stat(pid).map_err(gone)?;
        if stat.is_kernel_thread() {
            bail!(
                "process {pid} ({}) is a kernel thread: it has no sockets to follow",
                stat.comm
            );
        }
        if pidfd::has_exited(pidfd.as_fd()) {
            bail!(
                "process {pid} ({}) is dead already: a zombie that its parent, process {}, has not reaped",
                stat.comm,
                stat.parent
            );
        }
        Ok(Self {
            process: proc::process(pid, by_user).map_err(gone)?,
            parent: stat.parent,
            pidfd,
            start_ticks: stat.start_ticks,
        })
    }

    /// The process lived until now: whatever happens to it from here on is seen.
    ///
    /// # Errors
    /// When it died before the attach was complete.
    pub fn still_there(&self) -> Result<()> {
        let pid = self.process.pid;
        match proc::stat(pid) {
            Ok(stat) if stat.start_ticks == self.start_ticks && !pidfd::has_exited(self.pidfd.as_fd()) => {
                Ok(())
            }
            _ => bail!(
                "process {pid} ({}) died before the attach was complete, so what it left is not known; \
                 start it under sockleak instead: sockleak -- COMMAND",
                self.process.comm
            ),
        }
    }
}

fn gone(pid: u32, pidfd: BorrowedFd<'_>, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound if pidfd::has_exited(pidfd) => {
            anyhow!("process {pid} died before the attach began")
        }
        ErrorKind::NotFound | ErrorKind::PermissionDenied => anyhow!(
            "process {pid} is hidden: /proc shows another user's process only to CAP_SYS_PTRACE where it is mounted with \
             hidepid\n  fix: run it with sudo"
        ),
        _ => anyhow!("process {pid} cannot be read from /proc: {error}"),
    }
}
