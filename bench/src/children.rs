//! The processes that a measurement starts. None outlives the bench, however that ends: a role ends with its stdin, and a
//! tool when it writes of that into a pipe that nobody reads.

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sockleak_kernel::pidfd;

use crate::output::Output;
use crate::process;

/// How long a process may take to end before it is sent the signal again, and how often it is.
const PATIENCE: Duration = Duration::from_secs(5);
const SIGNALS: u32 = 3;

/// A child with pipes at stdin, stdout and stderr, killed with this value.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    pub output: Output,
    pub errors: Output,
}

impl Process {
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.get_program().to_owned();
        let mut child = command
            .spawn()
            .with_context(|| format!("{} could not be started", program.display()))?;
        Ok(Self {
            input: child.stdin.take(),
            output: Output::of(child.stdout.take().context("a pipe")?),
            errors: Output::of(child.stderr.take().context("a pipe")?),
            child,
        })
    }

    /// Starts this program in a role.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn in_role(words: &[&str]) -> Result<Self> {
        Self::start(Command::new("/proc/self/exe").args(words))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When it was waited for already.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        Ok(pidfd::open(self.pid())?)
    }

    /// Gives a command to a role; its answer comes with [`Self::answer`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{command}").context("it has ended")
    }

    /// The answer to the command of that number, counted from 0.
    ///
    /// # Errors
    /// When it fails, or says nothing.
    pub fn answer(&self, number: usize) -> Result<String> {
        let answer = self.output.wait("answer", |written| {
            let (line, _) = written.lines().nth(number)?;
            Some(String::from_utf8_lossy(line).trim().to_owned())
        });
        answer.with_context(|| self.errors.look(|errors| errors.text()))
    }

    /// Interrupts it, as Ctrl-C does, and reads what it wrote to the end. Where the bench ignores interrupts, as a
    /// command in the background may, a role does too, and ends with its stdin.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self) -> Result<()> {
        drop(self.input.take());
        let pidfd = self.pidfd()?;
        pidfd::interrupt(pidfd.as_fd())?;
        // bpftrace 0.17 notes a signal that comes just before it begins to wait for events, and then waits.
        for _ in 0..SIGNALS {
            if pidfd::exits_within(pidfd.as_fd(), PATIENCE) {
                break;
            }
            pidfd::interrupt(pidfd.as_fd())?;
        }
        self.wait()
    }

    /// The same for one that ends by itself.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&mut self) -> Result<()> {
        process::wait_for_deaths(&[self.pidfd()?])?;
        self.child.wait().context("it is no child any more")?;
        self.output.wait_for_end()?;
        self.errors.wait_for_end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
