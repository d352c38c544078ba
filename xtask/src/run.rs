//! `cargo xtask run`: build as the caller, run as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

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

pub fn run(options: &Options) -> Result<()> {
    let mut built = cargo::executables(&["build", "--release", "--package", "sockleak"], None)?;
    let sockleak = cargo::take(&mut built, "sockleak")?;
    let words = command_line(
        sockleak.into(),
        (!shell::is_root()).then(shell::caller),
        &options.args,
    );
    let mut command = shell::as_root("BPF", &words)?;
    // The process is replaced, so that signals reach sockleak and its exit status reaches the caller.
    Err(command.exec()).with_context(|| format!("`{}` could not be started", shell::describe(&command)))
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
