//! `cargo xtask recordings`: writes the recordings of the matrix, and what a replay says of them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::recorded::{self, EXTENSION, FOLDER, Form, SHOW};
use crate::{cargo, matrix, shell};

/// The integration test that makes a recording.
const TEST: &str = "recordings::";

#[derive(clap::Args)]
pub struct Options {
    /// Record on these kernels only, and leave the recordings of the others as they are.
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_value = "all")]
    kernel: Vec<String>,
    /// Leave all recordings as they are, and write only what a replay says of them.
    #[arg(long, conflicts_with = "kernel")]
    replay: bool,
}

/// # Errors
/// When a kernel cannot be started or records nothing, or a recording cannot be replayed.
pub fn run(options: &Options) -> Result<()> {
    let folder = shell::repository().join(FOLDER);
    if !options.replay {
        record(&options.kernel, &folder)?;
    }
    replay(&folder)
}

fn record(series: &[String], folder: &Path) -> Result<()> {
    let logs = matrix::logs(series)?;
    for (_, log) in &logs {
        // What a run before has left is no recording of this one.
        let _ = fs::remove_file(log);
    }
    let tested = matrix::run(series, &[OsStr::new(TEST), OsStr::new(SHOW)], None);
    fs::create_dir_all(folder).with_context(|| format!("{FOLDER} cannot be made"))?;
    for (series, log) in logs {
        let recording = recorded::shown(&fs::read_to_string(&log).unwrap_or_default());
        if recording.is_empty() {
            tested?;
            bail!("Linux {series} recorded nothing: see {}", log.display());
        }
        write(&folder.join(format!("{series}.{EXTENSION}")), &recording)?;
    }
    tested
}

fn replay(folder: &Path) -> Result<()> {
    let mut built = cargo::executables(&["build", "--package", "sockleak"], None)?;
    let sockleak = cargo::take(&mut built, "sockleak")?;
    let recordings = recorded::all(folder).with_context(|| format!("{FOLDER} cannot be read"))?;
    for recording in recordings {
        for form in Form::ALL {
            let said = shell::output(&mut form.replay(&sockleak, &recording))?;
            write(&recording.with_extension(form.extension()), &said)?;
        }
    }
    eprintln!("wrote {FOLDER}");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_found_among_what_a_guest_said() {
        let said = "running 1 test\nrecording: {\"recording\":{}}\ntest a ... ok\nrecording: {\"end\":{}}\nguest: end 0\n";
        assert_eq!(recorded::shown(said), "{\"recording\":{}}\n{\"end\":{}}\n");
        assert_eq!(recorded::shown("guest: end 101\n"), "");
    }
}
