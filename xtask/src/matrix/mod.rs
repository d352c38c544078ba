//! `cargo xtask test --kernel`: the integration tests on stock kernels in virtual machines.

mod apt;
mod compressor;
mod console;
mod image;
mod initramfs;
mod kernels;
mod machine;
mod outcome;
mod package;
mod tools;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{cargo, shell};

use initramfs::Initramfs;
use kernels::{Kernel, Kernels};
use outcome::{Outcome, Row};
use package::Unpacked;
use tools::Tools;

/// Programs run in the guest without any library beside them.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Emulation is slow and the machine has two processors, but most tests wait most of the time.
const THREADS: &str = "--test-threads=4";

/// Runs the integration tests on the kernels of these series. `words` go to the test program; `object` is a
/// BPF object to embed instead of the committed one.
///
/// # Errors
/// When a kernel cannot be fetched or started, or when a test failed on one of them, or one complained.
pub fn run(series: &[String], words: &[&OsStr], object: Option<&OsStr>) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the kernels are for x86-64, and their programs are built here: run this on an x86-64 machine");
    }
    let kernels = Kernels::read()?;
    let selected = kernels.select(series)?;
    machine::install()?;
    let programs = Programs::build(object)?;
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("{} cannot be made", cache.display()))?;
    let guests: Vec<Guest> = selected
        .iter()
        .map(|kernel| {
            Guest::prepare(kernel, &kernels, &programs, words, &cache)
                .with_context(|| format!("kernel {} cannot be tested", kernel.series))
        })
        .collect::<Result<_>>()?;
    let rows = run_all(&guests)?;
    print!("{}", outcome::table(&rows));
    if rows.iter().all(|row| row.outcome.is_good()) {
        return Ok(());
    }
    bail!("not every test passed on every kernel, or a kernel complained");
}

/// Where the tests of these series say what they said, by series.
///
/// # Errors
/// When a series is not in the list.
pub fn logs(series: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let selected = Kernels::read()?.select(series)?.into_iter();
    let logs = selected.map(|kernel| (kernel.series.clone(), folder(&kernel.series).join(machine::LOG)));
    Ok(logs.collect())
}

fn cache() -> PathBuf {
    shell::repository().join("target/kernels")
}

/// What the run of a kernel leaves.
fn folder(series: &str) -> PathBuf {
    cache().join("runs").join(series)
}

/// Runs as many guests at a time as there are processors: each of them takes one. The newest kernel, which does the most
/// for each event, comes first, so that none is left alone at the end.
fn run_all(guests: &[Guest]) -> Result<Vec<Row>> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let waiting = Mutex::new(guests.iter().enumerate().rev());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut rows = thread::scope(|scope| {
        let work = || -> Result<Vec<(usize, Row)>> {
            let mut rows = Vec::new();
            while let Some((index, guest)) = next() {
                rows.push((index, guest.run()?));
            }
            Ok(rows)
        };
        let workers: Vec<_> = (0..processors.min(guests.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let mut rows = Vec::new();
        for worker in workers {
            rows.extend(worker.join().map_err(|_| anyhow!("a machine's thread died"))??);
        }
        Ok::<_, anyhow::Error>(rows)
    })?;
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// A kernel with everything that it needs to be tested.
struct Guest {
    series: String,
    unpacked: Unpacked,
    fields: (usize, usize),
    initramfs: PathBuf,
    folder: PathBuf,
}

impl Guest {
    fn prepare(
        kernel: &Kernel,
        kernels: &Kernels,
        programs: &Programs,
        words: &[&OsStr],
        cache: &Path,
    ) -> Result<Self> {
        let unpacked = package::fetch(kernel, kernels, cache)?;
        let fields = fields(&programs.sockleak, &unpacked.btf)?;
        let folder = folder(&kernel.series);
        fs::create_dir_all(&folder)?;
        let initramfs = folder.join("initramfs.cpio");
        write_initramfs(&initramfs, programs, &unpacked, words)
            .with_context(|| format!("{} cannot be written", initramfs.display()))?;
        Ok(Self {
            series: kernel.series.clone(),
            unpacked,
            fields,
            initramfs,
            folder,
        })
    }

    fn run(&self) -> Result<Row> {
        eprintln!("testing on Linux {}", self.unpacked.release);
        let run = machine::boot(&self.series, &self.unpacked.image, &self.initramfs, &self.folder)?;
        Ok(Row {
            series: self.series.clone(),
            release: self.unpacked.release.clone(),
            fields: self.fields,
            seconds: run.took.as_secs(),
            outcome: Outcome::of(&run),
        })
    }
}

/// How many of the struct members that sockleak reads this BTF has, and of how many. `sockleak check` fails
/// when a required one is missing.
fn fields(sockleak: &Path, btf: &Path) -> Result<(usize, usize)> {
    let mut check = Command::new(sockleak);
    check.args(["check", "--output", "json", "--btf"]).arg(btf);
    let lines = shell::output(&mut check)?;
    let fields = lines.lines().filter(|line| line.contains(r#""type":"field""#));
    let found = |line: &&str| line.contains(r#""found":true"#);
    Ok((fields.clone().filter(found).count(), fields.count()))
}

/// What runs in the guest, linked statically.
struct Programs {
    /// Mounts what the tests need, starts them, and switches the machine off.
    init: PathBuf,
    sockleak: PathBuf,
    victim: PathBuf,
    kernel: PathBuf,
    tools: Tools,
}

impl Programs {
    fn build(object: Option<&OsStr>) -> Result<Self> {
        let build = |command: &[&str], profile, package: &[&str]| {
            let common = ["--profile", profile, "--target", TARGET, "--package"];
            cargo::static_executables(&[command, &common, package].concat(), object)
        };
        let mut found = build(&["build"], "release", &["sockleak"])?;
        found.extend(build(&["build"], "guest", &["sockleak-tests", "--bins"])?);
        let kernel = ["sockleak-tests", "--test", "kernel"];
        found.extend(build(&["test", "--no-run"], "guest", &kernel)?);
        let mut take = |name| cargo::take(&mut found, name);
        Ok(Self {
            init: take("guest")?,
            sockleak: take("sockleak")?,
            victim: take("victim")?,
            kernel: take("kernel")?,
            tools: Tools::find()?,
        })
    }
}

fn write_initramfs(path: &Path, programs: &Programs, unpacked: &Unpacked, words: &[&OsStr]) -> Result<()> {
    let mut archive = Initramfs::new(BufWriter::new(File::create(path)?));
    for folder in ["dev", "modules", "proc", "sys", "tmp"] {
        archive.folder(folder)?;
    }
    // Account names that the tests of foreign users look up.
    archive.file("etc/passwd", b"root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n")?;
    for (name, file) in [
        ("init", &programs.init),
        ("tests/sockleak", &programs.sockleak),
        ("tests/victim", &programs.victim),
        ("tests/kernel", &programs.kernel),
    ] {
        archive.file(name, &fs::read(file)?)?;
    }
    for file in &programs.tools.files {
        archive.file(in_root(file), &fs::read(file)?)?;
    }
    for (link, target) in &programs.tools.links {
        archive.link(in_root(link), &target.to_string_lossy())?;
    }
    // Init loads them in the order of their names.
    for (index, module) in unpacked.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{index:02}-{name}"), &fs::read(module)?)?;
    }
    let words: Vec<OsString> = [OsStr::new(THREADS)]
        .iter()
        .chain(words)
        .map(|word| word.to_os_string())
        .collect();
    archive.file("tests/arguments", words.join(OsStr::new("\n")).as_encoded_bytes())?;
    archive.finish()?.flush()?;
    Ok(())
}

/// A path as it is written in an archive of the root.
fn in_root(path: &Path) -> &str {
    path.to_str().unwrap_or_default().trim_start_matches('/')
}
