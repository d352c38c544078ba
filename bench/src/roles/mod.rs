//! What the bench is when it starts itself: the processes that are looked at, and one that looks.

pub mod bare;
pub mod churn;
pub mod load;

use std::io::{self, BufRead as _, Write as _};

use anyhow::Result;

/// Follows commands on stdin until it ends. Each is answered by one line.
fn obey(mut command: impl FnMut(&[&str]) -> Result<String>) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = command(&words)?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}
