//! The programs that undo what kernels and modules are compressed with.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{setup, shell};

#[derive(Clone, Copy)]
pub enum Compressor {
    Lz4,
    Xz,
    Zstd,
}

impl Compressor {
    /// What was compressed.
    pub fn expand(self, compressed: Vec<u8>) -> Result<Vec<u8>> {
        let (program, package) = match self {
            Self::Lz4 => ("lz4", "lz4"),
            Self::Xz => ("xz", "xz-utils"),
            Self::Zstd => ("zstd", "zstd"),
        };
        if shell::find(program).is_none() {
            setup::install(&[package], "what unpacks a kernel")?;
        }
        let mut child = Command::new(program)
            .args(["-d", "-c", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{program} could not be started"))?;
        let mut stdin = child.stdin.take().context("the program has no stdin")?;
        // Both pipes are small, so one thread cannot write everything before it reads.
        let writer = thread::spawn(move || stdin.write_all(&compressed));
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{program} failed: {}", output.status);
        }
        writer
            .join()
            .map_err(|_| anyhow!("the writer to {program} died"))??;
        Ok(output.stdout)
    }
}
