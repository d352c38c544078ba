//! `cargo xtask mutations`: whether the random situations find a rule for `bind()` that is wrong in one line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{cargo, shell};

const LIST: &str = "tests/mutations.toml";
/// What has to fail.
const ROW: &str = "port::differential::verdicts_are_what_bind_says";

#[derive(clap::Args)]
pub struct Options {
    /// Only the mutations whose description contains this.
    filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutations {
    mutation: Vec<Mutation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    what: String,
    file: PathBuf,
    /// A text that is in the file once.
    old: String,
    new: String,
}

/// Runs the row on a copy of the sources: as they are, and with each mutation.
///
/// # Errors
/// When it fails on the sources as they are, or does not find a mutation.
pub fn run(options: &Options) -> Result<()> {
    let all = Mutations::read()?;
    let is_asked = |mutation: &&Mutation| {
        let filter = options.filter.as_ref();
        filter.is_none_or(|filter| mutation.what.contains(filter))
    };
    let copy = Copy::make()?;
    ensure!(copy.passes()?, "{ROW} fails without any mutation: run it first");
    let mut missed = Vec::new();
    for mutation in all.mutation.iter().filter(is_asked) {
        if copy.finds(mutation)? {
            println!("found   {}", mutation.what);
        } else {
            println!("missed  {}", mutation.what);
            missed.push(mutation.what.as_str());
        }
    }
    if missed.is_empty() {
        return Ok(());
    }
    bail!("{ROW} does not find:\n  {}", missed.join("\n  "))
}

impl Mutations {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(shell::repository().join(LIST))
            .with_context(|| format!("{LIST} cannot be read"))?;
        toml::from_str(&text).with_context(|| format!("{LIST} is not what it should be"))
    }
}

impl Mutation {
    /// The content of the file with it.
    fn of(&self, right: &str) -> Result<String> {
        let places = right.matches(&self.old).count();
        ensure!(
            places == 1,
            "{} has this {places} times, not once: change {LIST}\n  {}",
            self.file.display(),
            self.old.trim_start()
        );
        Ok(right.replace(&self.old, &self.new))
    }
}

/// A copy of everything that git knows of.
struct Copy {
    sources: PathBuf,
    built: PathBuf,
}

impl Copy {
    fn make() -> Result<Self> {
        let folder = shell::repository().join("target/mutations");
        let sources = folder.join("sources");
        // Cargo goes by the times of the files, so that only what is mutated is built again.
        let mut list = Command::new("git");
        list.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
        let list = shell::output(list.current_dir(shell::repository()))?;
        for file in list.lines().map(Path::new) {
            let from = shell::repository().join(file);
            let to = sources.join(file);
            if from.exists() {
                copy(&from, &to).with_context(|| format!("{} cannot be copied", file.display()))?;
            }
        }
        let built = folder.join("built");
        Ok(Self { sources, built })
    }

    /// The row fails with that mutation.
    fn finds(&self, mutation: &Mutation) -> Result<bool> {
        let path = self.sources.join(&mutation.file);
        let right = fs::read_to_string(&path)?;
        fs::write(&path, mutation.of(&right)?)?;
        let passes = self.passes();
        fs::write(&path, right)?;
        Ok(!passes?)
    }

    fn passes(&self) -> Result<bool> {
        let mut build = cargo::cargo();
        build
            .args([
                "test",
                "--no-run",
                "--package",
                "sockleak-tests",
                "--test",
                "kernel",
            ])
            .env("CARGO_TARGET_DIR", &self.built)
            .current_dir(&self.sources);
        let mut built = cargo::executables_of(build)?;
        let kernel = cargo::take(&mut built, "kernel")?;
        let words = [kernel.as_os_str(), ROW.as_ref(), "--exact".as_ref()];
        let output = shell::as_root("testing against the kernel", &words)?.output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        ensure!(told.contains("running 1 test"), "{ROW} did not run:\n{told}");
        ensure!(!told.contains("1 ignored"), "{ROW} was ignored:\n{told}");
        Ok(output.status.success())
    }
}

/// Copies a file that has changed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from)?;
    if fs::read(to).is_ok_and(|copied| copied == content) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, content)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mutation_is_one_of_the_rule_as_it_is() {
        let all = Mutations::read().unwrap().mutation;
        assert_eq!(all.len(), 12);
        for mutation in all {
            let right = fs::read_to_string(shell::repository().join(&mutation.file)).unwrap();
            assert_ne!(mutation.of(&right).unwrap(), right, "{}", mutation.what);
        }
    }
}
