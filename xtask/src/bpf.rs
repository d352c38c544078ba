//! `cargo xtask bpf`: from the sources to the committed object, always the same bytes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::record::{self, OBJECT, RECORD, Record};
use crate::toolchain::{self, Rust, TARGET, Toolchain};
use crate::{shell, test};

/// Names an object that the build of sockleak embeds instead of the committed one.
pub const OBJECT_VARIABLE: &str = "SOCKLEAK_BPF_OBJECT";

/// What would make the object depend on the machine or on the caller's habits.
const UNWANTED: [&str; 8] = [
    "CARGO_BUILD_",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_UNSTABLE_",
    "LD_LIBRARY_PATH",
    "RUST",
];

/// The workspace's release profile is made for user space: it strips the debug information that BTF is
/// made of, and its LTO is bpf-linker's job.
const PROFILE: [(&str, &str); 9] = [
    ("CODEGEN_UNITS", "1"),
    ("DEBUG", "2"),
    ("DEBUG_ASSERTIONS", "false"),
    ("INCREMENTAL", "false"),
    ("LTO", "off"),
    ("OPT_LEVEL", "3"),
    ("OVERFLOW_CHECKS", "false"),
    ("PANIC", "abort"),
    ("STRIP", "none"),
];

#[derive(clap::Args)]
pub struct Options {
    /// Change nothing: prove that the committed object is what the sources give. With another toolchain than the
    /// recorded one, run the tests on a fresh object instead.
    #[arg(long)]
    check: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let folder = shell::repository().join("sockleak/bpf");
    let sources = record::sources_digest(shell::repository())?;
    if options.check {
        let (recorded, committed) = committed(&folder, &sources)?;
        return check(&recorded, &committed, sources);
    }
    let toolchain = Toolchain::find()?;
    let fresh = build(&toolchain)?;
    let bytes = read(&fresh)?;
    let record = toolchain.record(record::digest(&bytes), sources);
    write(&folder.join(OBJECT), &bytes)?;
    write(&folder.join(RECORD), record.to_string().as_bytes())?;
    eprintln!(
        "wrote sockleak/bpf/{OBJECT} ({} bytes) and sockleak/bpf/{RECORD}",
        bytes.len()
    );
    Ok(())
}

/// The committed record and object, if the one describes the other and both belong to the sources.
fn committed(folder: &Path, sources: &str) -> Result<(Record, Vec<u8>)> {
    let rebuild = "run `cargo xtask bpf` and commit what it writes";
    let text = fs::read_to_string(folder.join(RECORD))
        .with_context(|| format!("sockleak/bpf/{RECORD} cannot be read: {rebuild}"))?;
    let recorded = Record::parse(&text)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("sockleak/bpf/{RECORD} is damaged: {rebuild}"))?;
    let committed = fs::read(folder.join(OBJECT))
        .with_context(|| format!("sockleak/bpf/{OBJECT} cannot be read: {rebuild}"))?;
    if recorded.sources != sources {
        bail!("sockleak/bpf/{OBJECT} does not match the sources in sockleak-ebpf: {rebuild}");
    }
    if recorded.object != record::digest(&committed) {
        bail!("sockleak/bpf/{OBJECT} is not the object that sockleak/bpf/{RECORD} describes: {rebuild}");
    }
    Ok((recorded, committed))
}

fn check(recorded: &Record, committed: &[u8], sources: String) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let path = build(&toolchain)?;
    let fresh = read(&path)?;
    let here = toolchain.record(record::digest(&fresh), sources);
    let differences = differences(recorded, &here);
    if !differences.is_empty() {
        eprintln!("this toolchain is not the recorded one, so the bytes may differ:");
        for difference in differences {
            eprintln!("  {difference}");
        }
        eprintln!("running the tests on the fresh object instead");
        return test::run(&test::Options::ALL, Some(path.as_os_str()));
    }
    if fresh == committed {
        println!(
            "identical: sockleak/bpf/{OBJECT} is what the sources give (rustc {}, LLVM {}, bpf-linker {})",
            here.rustc, here.llvm, here.bpf_linker
        );
        return Ok(());
    }
    let offset = fresh.iter().zip(committed).take_while(|(a, b)| a == b).count();
    bail!(
        "sockleak/bpf/{OBJECT} is not what the sources give with the recorded toolchain: it has {} bytes \
         (SHA-256 {}), a fresh one has {} bytes (SHA-256 {}), and they differ from byte {offset} on. The fresh one is \
         {}. If the sources are right, run `cargo xtask bpf` and commit what it writes.",
        committed.len(),
        recorded.object,
        fresh.len(),
        here.object,
        path.display()
    );
}

/// How two records differ in the programs that built the object.
fn differences(recorded: &Record, here: &Record) -> Vec<String> {
    [
        ("rustc", &recorded.rustc, &here.rustc),
        ("LLVM of rustc", &recorded.llvm, &here.llvm),
        ("bpf-linker", &recorded.bpf_linker, &here.bpf_linker),
        ("llvm-strip", &recorded.llvm_strip, &here.llvm_strip),
    ]
    .into_iter()
    .filter(|(_, recorded, here)| recorded != here)
    .map(|(name, recorded, here)| format!("{name}: recorded {recorded}, here {here}"))
    .collect()
}

/// Builds the object below `target/bpf` and returns its path.
fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let target_dir = shell::repository().join("target/bpf");
    let rust = &toolchain.rust;
    let flags = rustflags(rust)?;

    // Cargo does not see that the linker or llvm-strip changed, so the last step is never taken from before.
    let mut clean = cargo(rust);
    clean.args([
        "clean",
        "--quiet",
        "--release",
        "--package",
        "sockleak-ebpf",
        "--target",
        TARGET,
        "--target-dir",
    ]);
    shell::run(clean.arg(&target_dir))?;

    let mut build = cargo(rust);
    build.args([
        "build",
        "--locked",
        "--release",
        "--package",
        "sockleak-ebpf",
        "--bin",
        "sockleak",
    ]);
    build
        .args(["--features", "programs", "--target", TARGET, "--target-dir"])
        .arg(&target_dir);
    if rust.build_std {
        build.args(["-Z", "build-std=core"]);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", flags);
    build.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.bpf_linker);
    shell::run(&mut build)?;

    // BTF and its line information stay. DWARF is most of the file, and the kernel has no use for it.
    let object = target_dir.join(OBJECT);
    let mut strip = Command::new(&toolchain.llvm_strip);
    strip
        .env_remove("LD_LIBRARY_PATH")
        .args(["--strip-debug", "-o"])
        .arg(&object);
    shell::run(strip.arg(target_dir.join(TARGET).join("release/sockleak")))?;

    let bytes = read(&object)?;
    let private = [Some(shell::repository().to_owned()), toolchain::cargo_home()];
    for path in private.into_iter().flatten() {
        if names_path(&bytes, &path) {
            bail!(
                "the object names {}, a path of this machine: it would have other bytes elsewhere. The remapping in \
                 xtask/src/bpf.rs does not cover it.",
                path.display()
            );
        }
    }
    Ok(object)
}

/// The flags that aya-build passes, and the paths that are the same everywhere.
fn rustflags(rust: &Rust) -> Result<OsString> {
    // The programs read no registers of a traced function, so the architecture makes no difference to them.
    let mut flags: Vec<OsString> = vec![
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
        "-Clink-arg=--btf".into(),
    ];
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    };
    // Of several prefixes that fit, rustc takes the last one: a package may lie below the repository.
    remap(shell::repository(), ".");
    remap(&rust.sysroot.join("lib/rustlib/src/rust"), "rust");
    let metadata = shell::output(cargo(rust).args(["metadata", "--locked", "--format-version=1"]))?;
    for (folder, name) in dependencies(&metadata)? {
        remap(&folder, &name);
    }
    Ok(flags.join(OsStr::new("\u{1f}")))
}

/// Where each dependency from outside the repository is, and its `NAME-VERSION`.
fn dependencies(metadata: &str) -> Result<Vec<(PathBuf, String)>> {
    let metadata: Value =
        serde_json::from_str(metadata).context("the output of cargo metadata is not JSON")?;
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("cargo metadata names no packages")?;
    let dependency = |package: &Value| {
        package.get("source")?.as_str()?;
        let text = |key| package.get(key).and_then(Value::as_str);
        let folder = Path::new(text("manifest_path")?).parent()?.to_owned();
        Some((folder, format!("{}-{}", text("name")?, text("version")?)))
    };
    Ok(packages.iter().filter_map(dependency).collect())
}

/// A cargo that uses this Rust whatever the caller's environment says.
fn cargo(rust: &Rust) -> Command {
    let mut command = Command::new(&rust.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if UNWANTED.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command.current_dir(shell::repository());
    command
        .env("RUSTC", &rust.rustc)
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "");
    // The BPF target needs features that stable Rust does not offer yet.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.envs(
        PROFILE
            .iter()
            .map(|(key, value)| (format!("CARGO_PROFILE_RELEASE_{key}"), value)),
    );
    command
}

/// Whether a string of the object begins with this path. Strings of BTF follow a NUL byte.
fn names_path(object: &[u8], path: &Path) -> bool {
    let start = [b"\0", path.as_os_str().as_encoded_bytes(), b"/"].concat();
    object.windows(start.len()).any(|window| window == start)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} could not be read", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("{} could not be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dependencies_from_outside_are_remapped() {
        let metadata = r#"{"packages":[
            {"name":"aya-ebpf","version":"0.2.1","source":"registry","manifest_path":"/cache/aya-ebpf-0.2.1/Cargo.toml"},
            {"name":"sockleak","version":"0.1.0","source":null,"manifest_path":"/repo/sockleak/Cargo.toml"}]}"#;
        let found = dependencies(metadata).expect("it is JSON");
        assert_eq!(
            found,
            [(
                PathBuf::from("/cache/aya-ebpf-0.2.1"),
                "aya-ebpf-0.2.1".to_owned()
            )]
        );
        assert!(dependencies("no JSON").is_err());
    }

    #[test]
    fn a_path_of_this_machine_is_found_where_a_string_begins_with_it() {
        let path = Path::new("/src");
        assert!(names_path(b"x\0/src/main.rs\0", path));
        assert!(!names_path(b"x\0./sockleak-ebpf/src/main.rs\0", path));
        assert!(!names_path(b"", path));
    }

    #[test]
    fn differences_name_both_versions() {
        let recorded = Record {
            object: String::new(),
            sources: String::new(),
            rustc: "1.96.0".to_owned(),
            llvm: "22.1.8".to_owned(),
            bpf_linker: "0.13.0".to_owned(),
            llvm_strip: "22.1.8".to_owned(),
        };
        let here = Record {
            object: "other".to_owned(),
            llvm: "22.1.9".to_owned(),
            ..recorded.clone()
        };
        assert_eq!(differences(&recorded, &recorded), [""; 0]);
        assert_eq!(
            differences(&recorded, &here),
            ["LLVM of rustc: recorded 22.1.8, here 22.1.9"]
        );
    }
}
