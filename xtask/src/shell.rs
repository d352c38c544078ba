//! Starting programs, and showing what is started.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

/// The root of the repository.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Runs a command and shows it before. An exit status other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", describe(command));
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("{} could not be started", program.display()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// What a command prints on stdout. An exit status other than 0 is an error.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("{} could not be started", program.display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed: {}\n{}",
            describe(command),
            output.status,
            stderr.trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} did not print UTF-8", program.display()))
}

/// The command line as one could type it.
pub fn describe(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The first executable of this name in PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    identity().is_some_and(|(user, _)| user == 0)
}

/// User and group of the caller, as `UID:GID`.
pub fn caller() -> Result<String> {
    let (user, group) = identity().context("/proc does not tell who this process is")?;
    Ok(format!("{user}:{group}"))
}

/// The folder of a process belongs to whoever it runs as (`task_dump_owner`, fs/proc/base.c).
fn identity() -> Option<(u32, u32)> {
    let own = fs::metadata("/proc/self").ok()?;
    Some((own.uid(), own.gid()))
}

/// A command that runs `words` as root: directly if the caller is root, else through sudo.
///
/// sudo would put in its own environment and its own PATH. What is run is the caller's work, so it gets
/// the caller's.
pub fn as_root<S: AsRef<OsStr>>(why: &str, words: &[S]) -> Result<Command> {
    let [program, args @ ..] = words else {
        bail!("there is nothing to run as root")
    };
    if is_root() {
        let mut command = Command::new(program);
        command.args(args);
        return Ok(command);
    }
    if find("sudo").is_none() {
        let typed = words
            .iter()
            .map(|word| quoted(word.as_ref()))
            .collect::<Vec<_>>()
            .join(" ");
        bail!("{why} needs root, and there is no sudo here: as root, run\n    {typed}");
    }
    eprintln!("running through sudo: {why} needs root");
    Ok(sudo(words))
}

fn sudo<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut path = OsString::from("PATH=");
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("sudo");
    command
        .args(["--preserve-env", "--", "env"])
        .arg(path)
        .args(words);
    command
}

/// Finds out whether [`as_root`] will work. sudo asks for the password now if it needs one; where it cannot, it says so.
///
/// # Errors
/// Says what is missing.
pub fn try_root(why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    if find("sudo").is_none() {
        bail!("{why} needs root, and there is no sudo here");
    }
    let status = sudo(&["true"]).status().context("sudo could not be started")?;
    if !status.success() {
        bail!(
            "{why} needs root, and sudo gives none, as it says above: where it wants a password, it needs a terminal"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted() {
        let mut command = Command::new("env");
        command.args(["A=b c", "it's", "", "--flag=1", "$HOME"]);
        assert_eq!(describe(&command), r"env 'A=b c' 'it'\''s' '' --flag=1 '$HOME'");
    }

    #[test]
    fn a_failing_command_is_an_error_that_shows_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("exit 3 is a failure");
        assert!(error.to_string().contains("sh -c 'exit 3'"), "{error}");
    }
}
