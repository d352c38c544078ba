//! The program that sockleak's are measured against: the least that one can do that follows some sockets and not others.

use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::obey;

/// Attaches it, says so, and stays until stdin ends.
///
/// # Errors
/// When the kernel refuses the program.
pub fn run() -> Result<()> {
    let _attached = sockleak_kernel::bare::attach().context("the bare program")?;
    println!("attached");
    std::io::stdout().flush()?;
    obey(|words| anyhow::bail!("there is no command {words:?}"))
}
