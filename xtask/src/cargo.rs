//! The cargo that started this program, and what it builds.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, ffi::OsStr};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// Names an object that the build of sockleak embeds instead of the committed one.
pub const OBJECT_VARIABLE: &str = "SOCKLEAK_BPF_OBJECT";

/// A cargo command in the root of the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo tells its children about the package `xtask`. For another cargo that is noise, and it would
    // rebuild what looks at these variables.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.current_dir(shell::repository());
    command
}

/// Runs cargo and returns the executables that it made, by the name of their target.
pub fn executables<S: AsRef<OsStr>>(args: &[S], object: Option<&OsStr>) -> Result<BTreeMap<String, PathBuf>> {
    collect(cargo(), args, object)
}

/// The same, with executables that need no library beside them.
pub fn static_executables<S: AsRef<OsStr>>(
    args: &[S],
    object: Option<&OsStr>,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo();
    command.env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    collect(command, args, object)
}

fn collect<S: AsRef<OsStr>>(
    mut command: Command,
    args: &[S],
    object: Option<&OsStr>,
) -> Result<BTreeMap<String, PathBuf>> {
    command.args(args);
    command.envs(object.map(|object| (OBJECT_VARIABLE, object)));
    executables_of(command)
}

/// Runs that command of cargo and returns the executables that it made, by the name of their target.
pub fn executables_of(mut command: Command) -> Result<BTreeMap<String, PathBuf>> {
    eprintln!("+ {}", shell::describe(&command));
    command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo could not be started")?;
    let mut found = BTreeMap::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            found.extend(executable(&line.context("cargo's messages could not be read")?));
        }
    }
    let status = child.wait().context("cargo could not be waited for")?;
    if !status.success() {
        bail!("`{}` failed: {status}", shell::describe(&command));
    }
    Ok(found)
}

/// Target name and path, if this message of cargo's tells of an executable.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

/// The executable of this name, or an error that says what cargo did not build.
pub fn take(found: &mut BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    found
        .remove(name)
        .with_context(|| format!("cargo built no executable named `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_cargos_messages() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"victim"},"executable":"/t/victim"}"#;
        assert_eq!(
            executable(message),
            Some(("victim".to_owned(), PathBuf::from("/t/victim")))
        );
        let library = r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("running 3 tests"), None);
    }
}
