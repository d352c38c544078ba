//! `cargo xtask test`: the one test command.

use std::ffi::{OsStr, OsString};

use anyhow::Result;

use crate::{cargo, matrix, setup, shell};

#[derive(clap::Args)]
pub struct Options {
    /// Run only the tests whose name contains this.
    filter: Option<String>,
    /// Run the integration tests on stock kernels in virtual machines instead: 5.10, 6.1, 6.12, 6.18, 7 or all.
    #[arg(long, value_name = "SERIES", value_delimiter = ',')]
    kernel: Vec<String>,
    /// Run also the tests that take minutes, whose names contain `long_`.
    #[arg(long)]
    long: bool,
    /// Further arguments for every test program, for example `-- --nocapture`.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

impl Options {
    /// Every test but those that take minutes.
    pub const ALL: Self = Self {
        filter: None,
        kernel: Vec::new(),
        long: false,
        args: Vec::new(),
    };

    fn harness_args(&self) -> impl Iterator<Item = &OsStr> {
        let is_named = self
            .filter
            .as_ref()
            .is_some_and(|filter| filter.contains("long_"));
        let skips = !self.long && !is_named;
        let skipped = ["--skip", "long_"].into_iter().filter(move |_| skips);
        let skipped = skipped.map(OsStr::new);
        self.filter
            .iter()
            .map(OsStr::new)
            .chain(skipped)
            .chain(self.args.iter().map(OsString::as_os_str))
    }
}

/// Runs the tests. `object` is a BPF object to embed instead of the committed one.
pub fn run(options: &Options, object: Option<&OsStr>) -> Result<()> {
    if !options.kernel.is_empty() {
        let words: Vec<&OsStr> = options.harness_args().collect();
        return matrix::run(&options.kernel, &words, object);
    }
    setup::test_tools()?;

    // The integration tests follow below, as root and with what they need. Their package may have unit
    // tests too, and those belong here.
    for selection in [
        &["--workspace", "--exclude", "sockleak-tests"][..],
        &["--package", "sockleak-tests", "--lib"],
    ] {
        let mut command = cargo::cargo();
        command
            .arg("test")
            .args(selection)
            .arg("--")
            .args(options.harness_args());
        shell::run(command.envs(object.map(|object| (cargo::OBJECT_VARIABLE, object))))?;
    }

    // Of these, those that are ignored because they need root or something of the kernel.
    let units = executable(
        &["test", "--no-run", "--package", "sockleak-kernel", "--lib"],
        object,
        "sockleak_kernel",
    )?;
    let mut words = vec![units, "--ignored".into()];
    words.extend(options.harness_args().map(OsStr::to_owned));
    shell::run(&mut shell::as_root("testing against the kernel", &words)?)?;

    let sockleak = executable(
        &["build", "--release", "--package", "sockleak"],
        object,
        "sockleak",
    )?;
    let victim = executable(
        &["build", "--release", "--package", "sockleak-tests", "--bins"],
        object,
        "victim",
    )?;
    let kernel = executable(
        &[
            "test",
            "--no-run",
            "--package",
            "sockleak-tests",
            "--test",
            "kernel",
        ],
        object,
        "kernel",
    )?;
    // The variables go through `env`, because sudo would drop them.
    let mut words = vec![OsString::from("env")];
    for (name, path) in [("SOCKLEAK=", sockleak), ("SOCKLEAK_VICTIM=", victim)] {
        let mut word = OsString::from(name);
        word.push(path);
        words.push(word);
    }
    words.push(kernel);
    words.extend(options.harness_args().map(OsStr::to_owned));
    shell::run(&mut shell::as_root("testing against the kernel", &words)?)
}

fn executable(args: &[&str], object: Option<&OsStr>, name: &str) -> Result<OsString> {
    Ok(cargo::take(&mut cargo::executables(args, object)?, name)?.into_os_string())
}
