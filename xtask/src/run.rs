//! `cargo xtask run`: build as the caller, run as root.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, shell};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask run -- demo\n  cargo xtask run -- --pid 4242\n  \
                        cargo xtask run -- -- python3 -m http.server"
)]
pub struct Options {
    /// Arguments of sockleak, passed on as they are.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// What builds sockleak, in words for cargo.
const BUILD: [&str; 4] = ["build", "--release", "--package", "sockleak"];

pub fn run(options: &Options) -> Result<()> {
    // The build takes minutes, and is for nothing where nobody can run what it makes.
    if let Err(error) = shell::try_root("BPF") {
        bail!("{error:#}.\n{}", by_hand(&options.args)?);
    }
    let mut built = cargo::executables(&BUILD, None)?;
    let sockleak = cargo::take(&mut built, "sockleak")?;
    let mut command = shell::as_root("BPF", &command_line(sockleak.into(), user()?, &options.args))?;
    // The process is replaced, so that signals reach sockleak and its exit status reaches the caller.
    Err(command.exec()).with_context(|| format!("`{}` could not be started", shell::describe(&command)))
}

/// What to type where this program cannot become root.
fn by_hand(args: &[OsString]) -> Result<String> {
    // Of the same build: this program is in `debug`.
    let own = env::current_exe().context("this program does not find itself")?;
    let target = own.ancestors().nth(2).unwrap_or(&own);
    let mut build = Command::new("cargo");
    build.args(BUILD);
    let words = command_line(target.join("release/sockleak").into(), user()?, args);
    let mut run = Command::new(&words[0]);
    run.args(&words[1..]);
    Ok(format!(
        "Build as you are, and run the second line as root:\n    {}\n    {}",
        shell::describe(&build),
        shell::describe(&run)
    ))
}

/// As whom a COMMAND runs.
fn user() -> Result<Option<String>> {
    (!shell::is_root()).then(shell::caller).transpose()
}

/// Where sockleak becomes root on the way, `--user` says as whom it starts a COMMAND.
fn command_line(sockleak: OsString, user: Option<String>, args: &[OsString]) -> Vec<OsString> {
    let mut words = vec![sockleak];
    if let Some(user) = user {
        words.extend(["--user".into(), user.into()]);
    }
    words.extend_from_slice(args);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_comes_before_the_given_arguments() {
        let args = ["--", "ls", "--user"].map(OsString::from);
        let words = command_line("sockleak".into(), Some("1000:100".to_owned()), &args);
        assert_eq!(words, ["sockleak", "--user", "1000:100", "--", "ls", "--user"]);
        assert_eq!(
            command_line("sockleak".into(), None, &args),
            ["sockleak", "--", "ls", "--user"]
        );
    }
}
