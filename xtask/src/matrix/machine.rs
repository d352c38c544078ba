//! One run of a kernel in QEMU.
//!
//! The guest's results come over the second serial line, away from the kernel's messages on the first.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{setup, shell};

/// A guest that says nothing for so long hangs. The longest wait of a test is shorter.
const SILENCE: Duration = Duration::from_secs(600);
/// A guest that takes longer is ended.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// The guest's last words, followed by the exit status of the tests.
const END: &str = "guest: end ";
/// What the tests say, in the folder of a run.
pub const LOG: &str = "tests.log";
const QEMU: &str = "qemu-system-x86_64";

/// What the guest said, and how it ended.
pub struct Run {
    pub lines: Vec<String>,
    pub end: End,
    pub took: Duration,
    /// The kernel's messages.
    pub console: PathBuf,
}

/// How a guest ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The tests ended with this exit status.
    Finished(i32),
    /// The machine stopped before the tests had ended: the kernel panicked, or QEMU failed.
    Died,
    /// It had to be ended.
    Hung,
}

/// Installs QEMU where it is missing.
///
/// # Errors
/// When it cannot be installed.
pub fn install() -> Result<()> {
    if shell::find(QEMU).is_none() {
        setup::install(&["qemu-system-x86"], "QEMU, which runs the kernels")?;
    }
    Ok(())
}

/// Boots the kernel with this root file system, and passes on what the guest says to a log in `folder`, and after
/// `name` to stderr.
///
/// # Errors
/// When QEMU cannot be started or the files cannot be written.
pub fn boot(name: &str, image: &Path, initramfs: &Path, folder: &Path) -> Result<Run> {
    let console = folder.join("console.log");
    let mut log = File::create(folder.join(LOG)).context("the log cannot be written")?;
    fs::write(&console, "").context("the console's log cannot be written")?;
    let mut command = Command::new("setpriv");
    command
        // The kernel ends it when this program ends, however that comes.
        .args(["--pdeathsig", "KILL", "--", QEMU])
        // Software emulation everywhere, so that every machine tests the same: KVM inside a virtual
        // machine may hang instead of failing.
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3072",
        ])
        .args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-nic",
            "none",
            "-no-reboot",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        // Level 5 is the first that shows warnings.
        .args(["-append", "console=ttyS0 panic=-1 quiet loglevel=5 rdinit=/init"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    eprintln!("+ {}", shell::describe(&command));
    let start = Instant::now();
    let mut machine = Machine(
        command
            .spawn()
            .context("setpriv (of util-linux), which starts QEMU, could not be started")?,
    );
    let stdout = machine.0.stdout.take().context("QEMU has no stdout")?;

    let mut lines = Vec::new();
    let said = listen(stdout);
    let mut end = End::Hung;
    while let Some(rest) = LIMIT.checked_sub(start.elapsed()) {
        match said.recv_timeout(rest.min(SILENCE)) {
            Ok(line) => {
                eprintln!("{name}: {}", beginning(&line));
                writeln!(log, "{line}").context("the log cannot be written")?;
                if let Some(status) = line.strip_prefix(END).and_then(|status| status.parse().ok()) {
                    end = End::Finished(status);
                }
                lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                if end == End::Hung {
                    end = End::Died;
                }
                break;
            }
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    drop(machine);
    Ok(Run {
        lines,
        end,
        took: start.elapsed(),
        console,
    })
}

/// What is shown of a line: those of a recording have thousands of characters.
fn beginning(line: &str) -> &str {
    const SHOWN: usize = 500;
    line.char_indices()
        .nth(SHOWN)
        .map_or(line, |(end, _)| &line[..end])
}

/// The lines, as they come.
fn listen(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // A test may print what is no UTF-8.
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A machine that ends with its owner.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has powered itself off cannot be killed any more, and that is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
