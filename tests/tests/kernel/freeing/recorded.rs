//! The leftovers of a report that was kept in a file.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::net::checked;
use sockleak_tests::programs;
use sockleak_tests::sandbox;
use sockleak_tests::tracer::{Tracer, finish, run};
use sockleak_tests::victim::Victim;

use super::untouched::{restart, serves};
use super::{free, lines, on_port, rows, settles};
use crate::refusals::refused;
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::TimeWaitDestroy],
        named![
            a_report_is_freed_by_its_cookies,
            a_report_from_another_namespace,
            a_stale_report_touches_nothing,
        ],
    );
    tests.extend(sandboxed(&[], named![what_cannot_be_a_report_is_refused]));
    tests
}

/// Lets a victim die while it is watched, and keeps the report in a file.
#[track_caller]
fn recorded(victim: &mut Victim, options: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let mut tracer = Tracer::attach(victim.pid(), options);
    victim.killed_by(libc::SIGKILL);
    tracer.report();
    assert_eq!(tracer.status(), 0);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.jsonl");
    fs::write(&file, tracer.stdout()).expect("it is ours");
    (folder, file)
}

#[track_caller]
fn free_report(file: &Path, options: &[&str]) -> (i32, Vec<Value>) {
    let file = file.to_str().expect("UTF-8");
    free(&[&["--report", file], options].concat())
}

fn a_report_is_freed_by_its_cookies() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    // What is closed before it is watched is a leftover of the same port that no report has.
    let _earlier = victim.accept(address, 1);
    victim.does("close");
    let peers = victim.accept(address, 3);
    peers[0].cut_off();
    let (_folder, file) = recorded(&mut victim, &[]);
    let before = on_port(address.port());
    assert_eq!(before.len(), 4);

    let (status, lines) = free_report(&file, &["--discard-unsent"]);
    let plan = [
        "1 FIN_WAIT1 would_destroy - peer_reset",
        "2 FIN_WAIT2 would_destroy - peer_reset",
    ];
    assert_eq!((status, rows(&lines)), (0, plan.map(str::to_owned).to_vec()));
    assert_eq!(on_port(address.port()), before, "a dry run changes nothing");
    let (status, lines) = free_report(&file, &["--discard-unsent", "--yes"]);
    let done = plan.map(|row| row.replace("would_destroy", "destroyed"));
    assert_eq!((status, rows(&lines)), (0, done.to_vec()));
    settles(address.port(), &[("FIN_WAIT2", 1)]);
    let (status, lines) = free_report(&file, &["--yes"]);
    assert_eq!((status, rows(&lines)), (0, vec!["3 - gone - -".to_owned()]));
}

/// A command in the namespace of the test process.
fn outside() -> Command {
    let namespace = sandbox::outside();
    let mut command = Command::new(programs::sockleak());
    // SAFETY: setns is a system call that needs no lock and no memory.
    unsafe {
        command.pre_exec(move || checked(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET)).map(drop));
    }
    command
}

fn a_report_from_another_namespace() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let port = peers[0].remote().port();
    // Somebody has the namespace: a test's thread is not looked at.
    let neighbour = Victim::start();
    let (_folder, file) = recorded(&mut victim, &[]);
    let arguments = ["-o", "json", "free", "--yes", "--report"];
    let run = finish(outside().args(arguments).arg(&file));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let lines = lines(&run);
    assert_eq!(rows(&lines), ["2 FIN_WAIT2 destroyed - peer_reset"]);
    assert_eq!(lines[0]["netns"], sandbox::inode());
    assert!(on_port(port).is_empty());
    drop(neighbour);
    // Now nobody can be found who has it, and so nothing can be said.
    let run = finish(outside().args(arguments).arg(&file));
    assert_eq!(rows(&self::lines(&run)), ["2 - refused netns_unreachable -"]);
    assert_eq!(run.status, 1, "{}", run.stderr);
}

fn a_stale_report_touches_nothing() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let address = peers[0].remote();
    let (_folder, file) = recorded(&mut victim, &[]);
    let (service, mut connections) = restart(address, peers);
    let (status, lines) = free_report(&file, &["--yes"]);
    assert_eq!((status, rows(&lines)), (0, vec!["2 - gone - -".to_owned()]));
    serves(&service, &mut connections);
    // Nor does a report that somebody has changed: this is the number by which the kernel is asked to compare none.
    let text = fs::read_to_string(&file).expect("it is ours");
    let line = text
        .lines()
        .find(|line| line.contains(r#""type":"report""#))
        .expect("a report");
    let mut report: Value = serde_json::from_str(line).expect("JSON");
    for socket in report["sockets"].as_array_mut().expect("a list") {
        socket["cookie"] = json!(u64::MAX);
        socket["outcome"] = json!("time_wait");
    }
    fs::write(&file, report.to_string()).expect("it is ours");
    let (status, lines) = free_report(&file, &["--yes"]);
    assert_eq!((status, rows(&lines)), (0, vec!["3 - gone - -".to_owned()]));
    serves(&service, &mut connections);
}

fn what_cannot_be_a_report_is_refused() {
    refused(&run(["free", "--report", "/no/such/file"]), "/no/such/file");
    refused(&run(["free", "--report", "/dev/null"]), "no report");
    let (mut victim, _peers) = Victim::serving("4", 1);
    let (_folder, file) = recorded(&mut victim, &["--summary"]);
    refused(
        &run(["free", "--report", file.to_str().expect("UTF-8")]),
        "--summary",
    );
    for arguments in [
        &["free"][..],
        &["free", "0"],
        &["free", "65536"],
        &["free", "http"],
        &["free", "80", "--report", "file"],
    ] {
        refused(&run(arguments), "Usage");
    }
}
