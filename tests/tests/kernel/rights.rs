//! What is missing is named.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::programs;
use sockleak_tests::rights::{
    BPF, Capability, DOCUMENTED, PERFMON, SETGID, SETUID, SYS_ADMIN, forbid_bpf, keep_only,
    rule_a_user_namespace, without,
};
use sockleak_tests::tracer::{Run, finish};
use sockleak_tests::victim::Victim;

use crate::refusals::{public_copy, refused};
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            capabilities_that_bpf_lacks_are_named,
            a_filter_that_forbids_bpf_is_named,
            capabilities_of_a_user_namespace_do_not_count,
            a_command_as_another_user,
        ],
    )
}

/// sockleak as nobody with these capabilities, run to its end.
#[track_caller]
fn run_with(capabilities: &[Capability], arguments: &[&str]) -> Run {
    let (_folder, sockleak) = public_copy();
    let mut command = Command::new(sockleak);
    keep_only(&mut command, capabilities);
    finish(command.args(arguments))
}

#[track_caller]
fn is_blind_for(blind: &Value, capability: &str) {
    let told = blind.to_string();
    assert!(told.contains(capability), "no {capability} in {told}");
}

fn capabilities_that_bpf_lacks_are_named() {
    let victim = Victim::start();
    let pid = victim.pid().to_string();
    for (missing, names) in [
        (
            &[BPF, PERFMON, SYS_ADMIN][..],
            "missing CAP_BPF (load programs and maps), CAP_PERFMON",
        ),
        (&[BPF, SYS_ADMIN], "missing CAP_BPF (load programs and maps)"),
        (&[PERFMON, SYS_ADMIN], "missing CAP_PERFMON"),
    ] {
        let capabilities = without(missing);
        let trace = run_with(&capabilities, &["--pid", &pid]);
        refused(&trace, names);
        assert!(trace.stderr.contains("fix: `sudo "), "{}", trace.stderr);
        // Without a tracer the rest is told all the same.
        let port = run_with(&capabilities, &["-o", "json", "port", "9"]);
        let told: Value = serde_json::from_str(&port.stdout).expect("an object");
        is_blind_for(&told["blind"], names);
        assert!(!port.stdout.contains("failed to create map"), "{}", port.stdout);
    }
}

/// All capabilities are there, so only the attempt tells.
fn a_filter_that_forbids_bpf_is_named() {
    let filtered = |arguments: &[&str]| {
        let mut command = Command::new(programs::sockleak());
        forbid_bpf(&mut command);
        finish(command.args(arguments))
    };
    let victim = Victim::start();
    let trace = filtered(&["--pid", &victim.pid().to_string()]);
    refused(&trace, "seccomp filter");
    assert!(trace.stderr.contains("fix: "), "{}", trace.stderr);
    let check = filtered(&["check"]);
    assert_eq!(check.status, 2, "{}", check.stdout);
    assert!(
        check.stdout.contains("MISSING bpf_capabilities"),
        "{}",
        check.stdout
    );
}

/// There root has all of them.
fn capabilities_of_a_user_namespace_do_not_count() {
    let nested = |arguments: &[&str]| {
        let mut command = Command::new(programs::sockleak());
        rule_a_user_namespace(&mut command);
        finish(command.args(arguments))
    };
    let victim = Victim::start();
    refused(
        &nested(&["--pid", &victim.pid().to_string()]),
        "in a user namespace",
    );
    let port = nested(&["-o", "json", "port", "9"]);
    let told: Value = serde_json::from_str(&port.stdout).expect("an object");
    is_blind_for(&told["blind"], "in a user namespace");
    let check = nested(&["check"]);
    let lines = |name: &str| check.stdout.lines().any(|line| line.starts_with(name));
    assert!(lines("MISSING bpf_capabilities"), "{}", check.stdout);
    assert!(lines("without process_capabilities"), "{}", check.stdout);
}

/// A command that cannot become its user is not started, nor is the tracer.
fn a_command_as_another_user() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let file = folder.path().join("made");
    let touch = ["--user", "1:1", "--", "touch", file.to_str().expect("UTF-8")];
    let run_as = |more: &[Capability]| run_with(&[&DOCUMENTED, more].concat(), &touch);
    for (more, missing) in [
        (
            &[][..],
            "missing CAP_SETGID (become another group), CAP_SETUID (become another user)",
        ),
        (&[SETGID], "missing CAP_SETUID (become another user)"),
        (&[SETUID], "missing CAP_SETGID (become another group)"),
    ] {
        let run = run_as(more);
        assert_eq!(run.status, 125, "{}", run.stderr);
        assert!(
            run.stderr.contains("cannot run touch as the user 1:1"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains(missing), "no `{missing}` in {}", run.stderr);
        assert!(!run.stderr.contains("watching"), "{}", run.stderr);
        assert!(!file.exists(), "with {more:?}");
    }
    let run = run_as(&[SETGID, SETUID]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(fs::metadata(&file).expect("touch ran").uid(), 1);
}
