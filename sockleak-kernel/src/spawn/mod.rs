//! Starts a command that waits just before its exec until the tracer watches it.
//!
//! [`start`] forks, so it is called while the process has one thread. The child keeps the caller's
//! signal mask, limits, environment and open standard streams.

mod errno;
mod exec;
mod identity;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use exec::Image;
pub use identity::Identity;

use super::preflight::rights::Rights;

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot run {program} as the user {identity}: {source}{remedy}")]
    Identity {
        program: String,
        /// `UID:GID`.
        identity: String,
        source: io::Error,
        /// What to do, in lines of its own.
        remedy: String,
    },
    #[error("cannot run {program}: {source}")]
    NotExecutable { program: String, source: io::Error },
    #[error("{program}: command not found")]
    NotFound { program: String },
}

impl SpawnError {
    /// The status that env(1) and the shells exit with for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { .. } | Self::Identity { .. } => 125,
            Self::NotExecutable { .. } => 126,
            Self::NotFound { .. } => 127,
        }
    }
}

/// A child that has not executed its command yet. Dropped, it ends without having done so; it also ends
/// when this process dies.
#[derive(Debug)]
pub struct StoppedChild {
    child: RunningChild,
    program: String,
    /// The child waits for a byte here. Its end means that the tracer is gone.
    gate: Option<PipeWriter>,
    /// Ends by close-on-exec; before that comes what the child tells ([`Image::run`]).
    failure: PipeReader,
    /// It executes its command and is no longer ended by the drop.
    released: bool,
}

/// A child that executes its command.
#[derive(Debug)]
pub struct RunningChild {
    pid: libc::pid_t,
    /// Set once it was reaped; its PID may be another's from then on.
    status: Option<ExitStatus>,
}

/// Forks a child that will execute a command, found along PATH as execvp(3) does it. With an identity it
/// becomes that user first, which needs CAP_SETUID and CAP_SETGID.
///
/// # Errors
///
/// When the child cannot be made, or cannot become that user. What is wrong with the command is told by
/// [`StoppedChild::release`].
pub fn start(
    program: &OsStr,
    arguments: &[OsString],
    identity: Option<&Identity>,
) -> Result<StoppedChild, SpawnError> {
    let name = program.to_string_lossy().into_owned();
    let failed = |source| SpawnError::Start {
        program: name.clone(),
        source,
    };
    let mut image = Image::prepare(program, arguments).map_err(failed)?;
    let (gate_reader, gate) = io::pipe().map_err(failed)?;
    let (failure, failure_writer) = io::pipe().map_err(failed)?;
    // SAFETY: The child runs only `Image::run`, which makes system calls and allocates nothing, so it does not
    // matter which locks other threads hold at this moment.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    if pid == 0 {
        // The child's copies of the parent's ends are closed, or its own would keep the gate open for ever.
        for inherited in [gate.as_raw_fd(), failure.as_raw_fd()] {
            // SAFETY: The descriptor is open, and the child never uses the object that owns it.
            unsafe { libc::close(inherited) };
        }
        image.run(gate_reader.as_raw_fd(), failure_writer.as_raw_fd(), identity);
    }
    let mut child = StoppedChild {
        child: RunningChild { pid, status: None },
        program: name.clone(),
        gate: Some(gate),
        failure,
        released: false,
    };
    // Its end closes the pipe only if this process has no copy of the other end.
    drop(failure_writer);
    if let Some(identity) = identity {
        child.has_become(identity)?;
    }
    Ok(child)
}

/// The exit status of a child that has ended, which stays to be reaped. `None` while it runs.
///
/// # Errors
///
/// When it was reaped already, or is no child.
pub fn peek(pid: u32) -> io::Result<Option<ExitStatus>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: The pointer is to an information that the kernel may write.
    if unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), options) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: All-zero is one, and the call may have written it.
    let info = unsafe { info.assume_init() };
    // SAFETY: After waitid() these members are those of SIGCHLD, or zero.
    let (child, status) = unsafe { (info.si_pid(), info.si_status()) };
    // As wait(2) encodes it.
    let encoded = if info.si_code == libc::CLD_EXITED {
        status << 8
    } else {
        status
    };
    Ok((child != 0).then(|| ExitStatus::from_raw(encoded)))
}

impl StoppedChild {
    /// Its process id, which stays through the exec.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What it will execute, as it was given.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Waits until it has become that user.
    fn has_become(&mut self, identity: &Identity) -> Result<(), SpawnError> {
        let mut told = [0; exec::ERRNO];
        let source = match self.failure.read_exact(&mut told) {
            Ok(()) => match exec::told(&told) {
                None | Some(0) => return Ok(()),
                Some(errno) => io::Error::from_raw_os_error(errno),
            },
            Err(error) => error,
        };
        Err(SpawnError::Identity {
            program: self.program.clone(),
            identity: identity.to_string(),
            source,
            remedy: Rights::read().identity_remedy(),
        })
    }

    /// Lets it execute its command, and returns when it does or cannot.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NotFound`] or [`SpawnError::NotExecutable`], with the child gone.
    pub fn release(mut self) -> Result<RunningChild, SpawnError> {
        let failed = |program: &str, source| SpawnError::Start {
            program: program.to_owned(),
            source,
        };
        if let Some(mut gate) = self.gate.take() {
            match gate.write_all(&[1]) {
                // A signal ended it while it waited. Its wait status says so.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other.map_err(|source| failed(&self.program, source))?,
            }
        }
        let mut told = Vec::new();
        self.failure
            .read_to_end(&mut told)
            .map_err(|source| failed(&self.program, source))?;
        if let Some(errno) = exec::told(&told) {
            return Err(self.explain(errno));
        }
        self.released = true;
        Ok(RunningChild {
            pid: self.child.pid,
            status: None,
        })
    }

    fn explain(&self, errno: i32) -> SpawnError {
        let program = self.program.clone();
        let source = io::Error::from_raw_os_error(errno);
        match errno {
            libc::ENOENT | libc::ENOTDIR => SpawnError::NotFound { program },
            _ => SpawnError::NotExecutable { program, source },
        }
    }
}

impl Drop for StoppedChild {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        // A child that has become another user may not be killed by this one: the closing gate ends it.
        drop(self.gate.take());
        let _ = self.child.signal(libc::SIGKILL);
        let _ = self.child.wait_status();
    }
}

impl RunningChild {
    /// A child that this process forked and did not reap.
    pub(super) const fn adopt(pid: libc::pid_t) -> Self {
        Self { pid, status: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Waits until it is dead and reaps it.
    ///
    /// # Errors
    ///
    /// When somebody else reaped it.
    pub fn wait_status(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.wait(0)? {
                return Ok(status);
            }
        }
    }

    /// Reaps it if it is dead; `None` while it lives.
    ///
    /// # Errors
    ///
    /// When somebody else reaped it.
    pub fn try_wait_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait(libc::WNOHANG)
    }

    /// Sends it a signal, by number.
    ///
    /// # Errors
    ///
    /// ESRCH when it was reaped already; EPERM when it has become another user.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if self.status.is_some() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: The call takes no pointers. The child was not reaped, so the PID is still its own.
        if unsafe { libc::kill(self.pid, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn wait(&mut self, options: i32) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let mut status = 0;
        // SAFETY: The pointer is to a live integer, which the kernel writes.
        match unsafe { libc::waitpid(self.pid, ptr::from_mut(&mut status), options) } {
            0 => Ok(None),
            reaped if reaped > 0 => {
                self.status = Some(ExitStatus::from_raw(status));
                Ok(self.status)
            }
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            },
        }
    }
}
