//! `cargo xtask contract`: the committed texts of what others rely on.

use anyhow::{Result, ensure};

use crate::{cargo, shell};

#[derive(clap::Args)]
pub struct Options {
    /// Compare with what is committed instead of writing it.
    #[arg(long)]
    check: bool,
}

/// The test of `sockleak` that makes the texts. It compares them, unless it is to write them.
const TEST: &str = "contract::the_contract_is_as_committed";
const WRITE: &str = "SOCKLEAK_WRITE_CONTRACT";

pub fn run(options: &Options) -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--quiet", "--package", "sockleak", "--lib", "--"]);
    command.args(["--exact", TEST]);
    if options.check {
        command.env_remove(WRITE);
    } else {
        command.env(WRITE, "1");
    }
    eprintln!("+ {}", shell::describe(&command));
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        eprint!("{told}{}", String::from_utf8_lossy(&output.stderr));
    }
    ensure!(
        output.status.success(),
        "what others rely on is not as `contract/` has it; if that is meant, run `cargo xtask contract` and commit what it writes"
    );
    // Cargo is content with a test that does not exist.
    ensure!(told.contains("1 passed"), "sockleak has no test {TEST}");
    Ok(())
}
