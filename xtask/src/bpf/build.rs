//! From the sources to the object, the same bytes on every machine.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::object;
use crate::shell;
use crate::toolchain::{self, Rust, TARGET, Toolchain};

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

/// Where [`build`] leaves the object.
pub fn fresh() -> PathBuf {
    target_dir().join(format!("{}.bpf.o", object::NAME))
}

fn target_dir() -> PathBuf {
    shell::repository().join("target/bpf")
}

/// Builds the object below `target/bpf`.
pub fn build(toolchain: &Toolchain) -> Result<()> {
    let target_dir = target_dir();
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
    build.args(["build", "--locked", "--release", "--package", "sockleak-ebpf"]);
    build.args(["--bin", object::NAME]);
    build
        .args(["--features", "programs", "--target", TARGET, "--target-dir"])
        .arg(&target_dir);
    if rust.build_std {
        build.args(["-Z", "build-std=core"]);
    }
    build.env("CARGO_ENCODED_RUSTFLAGS", flags);
    build.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.bpf_linker);
    shell::run(&mut build)?;
    strip(toolchain)
}

/// BTF and its line information stay. DWARF is most of the file, and the kernel has no use for it.
fn strip(toolchain: &Toolchain) -> Result<()> {
    let stripped = fresh();
    let mut strip = Command::new(&toolchain.llvm_strip);
    strip
        .env_remove("LD_LIBRARY_PATH")
        .args(["--strip-debug", "-o"])
        .arg(&stripped);
    shell::run(strip.arg(target_dir().join(TARGET).join("release").join(object::NAME)))?;

    let bytes = read(&stripped)?;
    let private = [Some(shell::repository().to_owned()), toolchain::cargo_home()];
    for path in private.into_iter().flatten() {
        if names_path(&bytes, &path) {
            bail!(
                "{} names {}, a path of this machine: it would have other bytes elsewhere. The remapping in \
                 xtask/src/bpf/build.rs does not cover it.",
                object::NAME,
                path.display()
            );
        }
    }
    Ok(())
}

/// The flags that aya-build passes, and the paths that are the same everywhere.
fn rustflags(rust: &Rust) -> Result<OsString> {
    // The programs read no registers of a traced function, so the architecture makes no difference to them.
    let mut flags: Vec<OsString> = vec![
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
        "-Clink-arg=--btf".into(),
        // With it LLVM calls memset() even for a few bytes, and a verifier follows that byte for byte.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
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

/// Reads a file; an error names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} could not be read", path.display()))
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
}
