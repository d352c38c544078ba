//! `cargo xtask run`, started by somebody who is not root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// What it says where these scripts are all programs that there are.
fn run(scripts: &[(&str, &str)]) -> String {
    // A child of another test that is on its way to its program has what is written here open too, and then it cannot be
    // executed.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let public = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&folder, public.clone()).expect("it is ours");
    let add = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("it can be written");
        fs::set_permissions(&path, public.clone()).expect("it is ours");
        path
    };
    for (name, script) in scripts {
        add(name, script.as_bytes());
    }
    let xtask = fs::read(env!("CARGO_BIN_EXE_xtask")).expect("it was built");
    let mut command = Command::new(add("xtask", &xtask));
    command
        .args(["run", "--", "demo"])
        .env("PATH", folder.path())
        .env("CARGO", folder.path().join("no-cargo"));
    if fs::metadata("/proc/self").expect("/proc").uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let output = command.output().expect("it can be started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

/// Each command is shown before it is started.
const BUILDS: &str = "no-cargo build --release --package sockleak";

#[track_caller]
fn is_refused_before_the_build(told: &str) {
    assert!(!told.contains(BUILDS), "{told}");
    let lines: Vec<_> = told.lines().rev().collect();
    assert_eq!(lines[1], "    cargo build --release --package sockleak");
    assert!(lines[0].contains("/release/sockleak --user "), "{told}");
    assert!(lines[0].ends_with(" demo"), "{told}");
}

#[test]
fn without_sudo_nothing_is_built() {
    let told = run(&[]);
    assert!(
        told.contains("BPF needs root, and there is no sudo here"),
        "{told}"
    );
    is_refused_before_the_build(&told);
}

#[test]
fn where_sudo_refuses_nothing_is_built() {
    let refusal = "sudo: a terminal is required to read the password";
    let told = run(&[("sudo", &format!("#!/bin/sh\necho '{refusal}' >&2\nexit 1\n"))]);
    assert!(told.starts_with(refusal), "{told}");
    assert!(told.contains("BPF needs root, and sudo gives none"), "{told}");
    is_refused_before_the_build(&told);
}

#[test]
fn where_sudo_gives_root_it_is_built() {
    let told = run(&[("sudo", "#!/bin/sh\nexit 0\n")]);
    assert!(told.contains(BUILDS), "{told}");
}
