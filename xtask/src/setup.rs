//! `cargo xtask setup`: installs what is missing, and nothing else.

use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::toolchain::{self, BPF_LINKER_VERSION, Rust};
use crate::{cargo, shell};

/// The Rust packages that have a `core` for BPF, best first: the ones that Debian keeps current in every
/// release, and the ordinary ones.
const RUST_PACKAGES: [[&str; 3]; 2] = [
    ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"],
    ["rustc", "cargo", "libstd-rust-dev-bpf"],
];

/// Programs that the tests start, and the packages they are in.
const TEST_TOOLS: [(&str, &str); 2] = [("python3", "python3"), ("ss", "iproute2")];

/// Installs what `cargo xtask bpf` needs.
pub fn bpf_toolchain() -> Result<()> {
    if Rust::find().is_err() {
        install_rust()?;
    }
    let rust = Rust::find()?;
    let major = rust.llvm_major();
    let linker = toolchain::bpf_linker().is_some_and(|(_, version)| version == BPF_LINKER_VERSION);
    let has = |program| toolchain::llvm_program(program, major).is_some();
    // Where there is no apt, an llvm-config is all that shows that LLVM was installed by hand.
    if !has("llvm-strip") || (!linker && (has_apt() || !has("llvm-config"))) {
        let packages = [
            &format!("llvm-{major}-dev"),
            &format!("libpolly-{major}-dev"),
            "libzstd-dev",
            "zlib1g-dev",
        ];
        install(&packages, "LLVM for bpf-linker")?;
    }
    if !linker {
        install_bpf_linker(major)?;
    }
    let here = toolchain::Toolchain::find()?;
    eprintln!(
        "ready for `cargo xtask bpf`: rustc {} at {}, LLVM {}, bpf-linker {}",
        here.rust.version,
        here.rust.rustc.display(),
        here.rust.llvm,
        here.bpf_linker_version
    );
    Ok(())
}

/// Installs the programs that the tests start.
pub fn test_tools() -> Result<()> {
    let missing: Vec<_> = TEST_TOOLS
        .iter()
        .filter(|(program, _)| shell::find(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(
        &missing.iter().map(|(_, package)| *package).collect::<Vec<_>>(),
        "programs that the tests start",
    )
}

fn install_rust() -> Result<()> {
    if !has_apt() {
        bail!(
            "there is no Rust here that can build for BPF, and this is neither Debian nor Ubuntu, so install it \
             yourself: either a rustc in /usr/bin with the target {}, or\n    \
             rustup toolchain install nightly --component rust-src",
            toolchain::TARGET
        );
    }
    update();
    let Some(packages) = RUST_PACKAGES
        .iter()
        .find(|packages| packages.iter().all(|package| available(package)))
    else {
        bail!(
            "this release has no Rust that can build for BPF (packages {}), so use rustup's:\n    \
             rustup toolchain install nightly --component rust-src",
            RUST_PACKAGES[0].join(", ")
        );
    };
    apt_install(packages)
}

fn install_bpf_linker(major: &str) -> Result<()> {
    let mut command = cargo::cargo();
    command.args([
        "install",
        "bpf-linker",
        "--locked",
        "--version",
        BPF_LINKER_VERSION,
    ]);
    command.args(["--no-default-features", "--features", &format!("llvm-{major}")]);
    // Its build asks the llvm-config that comes first in PATH where LLVM is.
    let llvm = format!("/usr/lib/llvm-{major}/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    command.env(
        "PATH",
        env::join_paths([llvm.into()].into_iter().chain(env::split_paths(&path)))?,
    );
    eprintln!("building bpf-linker, which takes some minutes");
    shell::run(&mut command)
}

/// Installs packages on Debian and Ubuntu, and names them elsewhere.
pub fn install(packages: &[&str], what: &str) -> Result<()> {
    let missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has_apt() {
        bail!(
            "{what} cannot be installed, because this is neither Debian nor Ubuntu. Install what these packages of \
             Debian's have, and try again: {}",
            missing.join(" ")
        );
    }
    update();
    apt_install(&missing)
}

fn has_apt() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian(&release) && shell::find("apt-get").is_some()
}

/// Whether an os-release file is that of Debian or of something made from it.
fn is_debian(release: &str) -> bool {
    let values = release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")));
    values
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .any(|id| ["debian", "ubuntu"].contains(&id))
}

fn installed(package: &str) -> bool {
    shell::output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Whether apt knows a version of this package that it could install.
fn available(package: &str) -> bool {
    shell::output(
        Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )
    .is_ok_and(|policy| policy.contains("Candidate: ") && !policy.contains("Candidate: (none)"))
}

/// A source that does not answer need not be one that is needed, so this alone is no failure.
fn update() {
    let updated =
        shell::as_root("apt-get", &["apt-get", "update", "--quiet"]).and_then(|mut apt| shell::run(&mut apt));
    if let Err(error) = updated {
        eprintln!("going on with the package lists at hand: {error:#}");
    }
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let apt = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
    ];
    shell::run(&mut shell::as_root("apt-get", &[&apt, packages].concat())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_recognised() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian(
            "ID=fedora\nID_LIKE=\"rhel centos\"\nHOME_URL=\"https://debian.org\"\n"
        ));
        assert!(!is_debian(""));
    }
}
