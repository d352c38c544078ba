//! The recordings of one set of deaths on each kernel of the matrix, and what a replay says of them: `tests/recordings`.
//!
//! Three programs share this file: an integration test makes a recording, `cargo xtask recordings` writes it down with what a
//! replay says of it, and the tests of `sockleak replay` compare.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where they are in the repository.
pub const FOLDER: &str = "tests/recordings";
/// What begins a line of the test that shows a line of its recording.
pub const RECORDED: &str = "recording: ";
/// The option with which it does so.
pub const SHOW: &str = "--nocapture";
/// How the name of a recording ends.
pub const EXTENSION: &str = "jsonl";

/// A form in which a replay prints, and how the name of what is expected of it ends.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Text,
    Json,
}

impl Form {
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The word for it on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// How the name of the file ends that has what is expected.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
        }
    }

    /// The replay of a recording in this form. Nothing of the environment has a say in what it prints.
    #[must_use]
    pub fn replay(self, sockleak: impl AsRef<OsStr>, recording: &Path) -> Command {
        let mut command = Command::new(sockleak);
        command
            .env_clear()
            .args(["replay", "-o", self.name()])
            .arg(recording);
        command
    }
}

/// The recordings of that folder, in the order of their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn all(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The recording that a test showed among what it said.
#[must_use]
pub fn shown(said: &str) -> String {
    let lines = said.lines().filter_map(|line| line.strip_prefix(RECORDED));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The first line that is another one. Of a long line only what is around the difference.
#[must_use]
pub fn first_difference(expected: &str, printed: &str) -> Option<String> {
    const AROUND: usize = 60;
    let lines = expected.lines().count().max(printed.lines().count());
    let at = |text: &str, number: usize| text.lines().nth(number).unwrap_or("(no more lines)").to_owned();
    let number = (0..lines).find(|number| at(expected, *number) != at(printed, *number));
    let Some(number) = number else {
        return (expected != printed).then(|| "the ends of the lines differ".to_owned());
    };
    let (expected, printed) = (at(expected, number), at(printed, number));
    let same = expected
        .chars()
        .zip(printed.chars())
        .take_while(|(one, other)| one == other);
    let skipped = same.count().saturating_sub(AROUND);
    let part = |line: &str| line.chars().skip(skipped).take(3 * AROUND).collect::<String>();
    Some(format!(
        "line {}, from character {}:\n  expected {}\n  printed  {}",
        number + 1,
        skipped + 1,
        part(&expected),
        part(&printed)
    ))
}
