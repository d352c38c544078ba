//! Finding the programs that build the BPF object.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{record::Record, shell};

/// The target of the object. One little-endian object serves every little-endian machine.
pub const TARGET: &str = "bpfel-unknown-none";
/// The bpf-linker that is known to work with the aya in the lock file.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// A Rust toolchain that can build for BPF.
pub struct Rust {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    /// Where its libraries are.
    pub sysroot: PathBuf,
    /// Whether `core` must be built from source, because no built one comes with it.
    pub build_std: bool,
    /// `rustc --version`, without the name.
    pub version: String,
    /// Version of its LLVM.
    pub llvm: String,
}

/// All that turns the sources into the object.
pub struct Toolchain {
    pub rust: Rust,
    pub bpf_linker: PathBuf,
    pub bpf_linker_version: String,
    pub llvm_strip: PathBuf,
    pub llvm_strip_version: String,
}

impl Rust {
    /// The distribution's Rust if it has a `core` for BPF, else rustup's nightly if it has the sources.
    pub fn find() -> Result<Self> {
        let system = Self::new(Path::new("/usr/bin/cargo"), Path::new("/usr/bin/rustc"), false);
        if let Some(rust) = system {
            return Ok(rust);
        }
        let nightly = |program| {
            let found =
                shell::output(Command::new("rustup").args(["which", "--toolchain", "nightly", program]));
            found.ok().map(|path| PathBuf::from(path.trim()))
        };
        nightly("cargo")
            .zip(nightly("rustc"))
            .and_then(|(cargo, rustc)| Self::new(&cargo, &rustc, true))
            .context("there is no Rust here that can build for BPF: run `cargo xtask setup`")
    }

    fn new(cargo: &Path, rustc: &Path, build_std: bool) -> Option<Self> {
        let verbose = cargo
            .is_file()
            .then(|| ask(rustc, &["--version", "--verbose"]).ok())??;
        let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"]).ok()?);
        let libraries = sysroot.join("lib/rustlib");
        let core = if build_std {
            libraries.join("src/rust/library/core")
        } else {
            libraries.join(TARGET).join("lib")
        };
        core.is_dir().then_some(())?;
        Some(Self {
            cargo: cargo.to_owned(),
            rustc: rustc.to_owned(),
            sysroot,
            build_std,
            version: verbose.lines().next()?.strip_prefix("rustc ")?.to_owned(),
            llvm: after(&verbose, "LLVM version: ")?,
        })
    }

    /// The first part of LLVM's version, which bpf-linker must have been built for.
    pub fn llvm_major(&self) -> &str {
        self.llvm.split('.').next().unwrap_or(&self.llvm)
    }
}

impl Toolchain {
    pub fn find() -> Result<Self> {
        let rust = Rust::find()?;
        let (bpf_linker, bpf_linker_version) =
            bpf_linker().context("there is no bpf-linker here that works: run `cargo xtask setup`")?;
        if bpf_linker_version != BPF_LINKER_VERSION {
            bail!(
                "{} is version {bpf_linker_version}, and {BPF_LINKER_VERSION} is needed: run `cargo xtask setup`",
                bpf_linker.display()
            );
        }
        let (llvm_strip, llvm_strip_version) =
            llvm_program("llvm-strip", rust.llvm_major()).with_context(|| {
                format!(
                    "there is no llvm-strip of LLVM {} here: run `cargo xtask setup`",
                    rust.llvm_major()
                )
            })?;
        Ok(Self {
            rust,
            bpf_linker,
            bpf_linker_version,
            llvm_strip,
            llvm_strip_version,
        })
    }

    /// The record of an object that this toolchain built.
    pub fn record(&self, object: String, sources: String) -> Record {
        Record {
            object,
            sources,
            rustc: self.rust.version.clone(),
            llvm: self.rust.llvm.clone(),
            bpf_linker: self.bpf_linker_version.clone(),
            llvm_strip: self.llvm_strip_version.clone(),
        }
    }
}

/// bpf-linker and its version, from where `cargo install` puts it or from PATH.
pub fn bpf_linker() -> Option<(PathBuf, String)> {
    let installed = cargo_home().map(|home| home.join("bin/bpf-linker"));
    [installed, shell::find("bpf-linker")]
        .into_iter()
        .flatten()
        .find_map(|path| {
            let version = after(&ask(&path, &["--version"]).ok()?, "bpf-linker ")?;
            Some((path, version))
        })
}

/// A program of this LLVM, and its version. Distributions keep it out of PATH or add the number to its name.
pub fn llvm_program(name: &str, major: &str) -> Option<(PathBuf, String)> {
    let private = PathBuf::from(format!("/usr/lib/llvm-{major}/bin")).join(name);
    let numbered = shell::find(&format!("{name}-{major}"));
    [Some(private), numbered, shell::find(name)]
        .into_iter()
        .flatten()
        .find_map(|path| {
            let text = ask(&path, &["--version"]).ok()?;
            // llvm-config prints nothing but the version.
            let version = after(&text, "LLVM version ").unwrap_or(text);
            version
                .starts_with(&format!("{major}."))
                .then_some((path, version))
        })
}

/// Where cargo keeps what it downloads and installs.
pub fn cargo_home() -> Option<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// Cargo sets a library path for the programs it runs, which is meant for its own toolchain only.
fn ask(program: &Path, args: &[&str]) -> Result<String> {
    let text = shell::output(Command::new(program).args(args).env_remove("LD_LIBRARY_PATH"))?;
    Ok(text.trim().to_owned())
}

/// The word that follows this label.
fn after(text: &str, label: &str) -> Option<String> {
    let (_, rest) = text.split_once(label)?;
    rest.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        let rustc = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8";
        assert_eq!(after(rustc, "LLVM version: ").as_deref(), Some("22.1.8"));
        let strip = "llvm-strip, compatible with GNU strip\nDebian LLVM version 22.1.8\n  Optimized build.";
        assert_eq!(after(strip, "LLVM version ").as_deref(), Some("22.1.8"));
        assert_eq!(
            after("bpf-linker 0.13.0", "bpf-linker ").as_deref(),
            Some("0.13.0")
        );
        assert_eq!(after("something else", "bpf-linker "), None);
    }
}
