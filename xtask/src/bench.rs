//! `cargo xtask bench`: build as the caller, measure as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cargo, shell};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Options of the bench: see `cargo xtask bench --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub args: Vec<OsString>,
}

pub fn run(options: &Options) -> Result<()> {
    let packages = ["--package", "sockleak", "--package", "sockleak-bench", "--bins"];
    let mut built = cargo::executables(&[&["build", "--release"][..], &packages].concat(), None)?;
    let mut words = vec![cargo::take(&mut built, "bench")?.into_os_string()];
    words.extend(options.args.iter().cloned());
    if asks_for_help(&options.args) {
        let mut help = Command::new(&words[0]);
        return Err(help.args(&words[1..]).exec()).context("the bench could not be started");
    }
    words.extend(["--sockleak".into(), cargo::take(&mut built, "sockleak")?.into()]);
    if let Some(commit) = commit() {
        words.extend(["--commit".into(), commit.into()]);
    }
    let mut command = shell::as_root("measuring", &words)?;
    Err(command.exec()).with_context(|| format!("`{}` could not be started", shell::describe(&command)))
}

fn asks_for_help(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--help" || arg == "-h")
}

/// The commit of the working tree, marked where it was changed since.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(shell::repository());
    let told = shell::output(git.args(["describe", "--always", "--dirty", "--abbrev=12"])).ok()?;
    Some(told.trim().to_owned())
}
