//! COMMAND while it runs: it gets the signals that sockleak gets, and its status becomes sockleak's.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use sockleak_kernel::spawn::{RunningChild, StoppedChild};
use sockleak_kernel::{pidfd, terminal, wait};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::SignalKind;

use super::interrupts::Interrupts;
use super::wait_status::exit_code;

/// COMMAND.
pub struct Command {
    child: RunningChild,
    program: String,
    /// It is opened while there is a descriptor for it.
    pidfd: AsyncFd<OwnedFd>,
}

impl Command {
    /// Lets it run. It does not if its end could not be waited for.
    ///
    /// # Errors
    /// When there is no descriptor for it, or when it cannot be run.
    pub fn release(child: StoppedChild) -> Result<Self> {
        let pidfd = wait::readable(pidfd::open(child.pid())?).context("cannot wait for COMMAND")?;
        let program = child.program().to_owned();
        Ok(Self {
            child: child.release()?,
            program,
            pidfd,
        })
    }

    /// Its PID and how it was called.
    pub fn name(&self) -> (u32, String) {
        (self.child.pid(), self.program.clone())
    }

    /// Its exit status as a shell gives it; `None` while it runs.
    ///
    /// # Errors
    /// When somebody else reaped it.
    pub fn status(&mut self) -> Result<Option<u8>> {
        let status = self.child.try_wait_status().context("cannot wait for COMMAND")?;
        Ok(status.map(exit_code))
    }

    /// It decides what a signal means. A terminal sends Ctrl-C to it as well, which is not to arrive twice.
    pub fn pass_on(&self, received: i32) {
        if received == SignalKind::interrupt().as_raw_value() && terminal::is_foreground() {
            return;
        }
        if let Err(error) = self.child.signal(received) {
            log::warn!("the signal could not be passed on: {error}");
        }
    }

    /// Waits for its end and passes signals on. `None` if a second signal ends the wait before.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn outlast(&mut self, interrupts: &mut Interrupts) -> Result<Option<u8>> {
        loop {
            tokio::select! {
                _ = self.pidfd.readable() => return self.status(),
                received = interrupts.next() => {
                    if interrupts.is_second() {
                        return Ok(None);
                    }
                    self.pass_on(received);
                }
            }
        }
    }
}
