//! The leftovers of a report that was kept in a file.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::judge;
use sockleak_tests::net::checked;
use sockleak_tests::peer::Peer;
use sockleak_tests::programs;
use sockleak_tests::record;
use sockleak_tests::sandbox;
use sockleak_tests::tracer::{Run, Tracer, finish, run};
use sockleak_tests::victim::Victim;

use super::untouched::{restart, serves};
use super::{free, is_in_use, lines, on_port, plain_bind, rows, settles};
use crate::robustness::refusals::refused;
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::TimeWaitDestroy],
        named![
            a_report_is_freed_by_its_cookies,
            what_the_process_closed_itself_is_freed_too,
            a_report_without_cookies_names_the_command,
            a_report_from_another_namespace,
            a_stale_report_touches_nothing,
        ],
    );
    tests.extend(sandboxed(
        &[Need::TimeWaitDestroy, Need::Mptcp],
        named![an_mptcp_socket_of_a_report_is_left],
    ));
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

/// A dead process that had closed two connections of its port, and three to another one.
#[track_caller]
fn closed_itself() -> (SocketAddr, SocketAddr, Vec<Peer>, Value) {
    let server = TcpListener::bind("127.0.0.1:0").expect("an address of the sandbox");
    let remote = server.local_addr().expect("it is bound");
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let mut peers = victim.accept(address, 2);
    victim.does(&format!("outgoing 3 {remote}"));
    for _ in 0..3 {
        peers.push(Peer::from(server.accept().expect("the victim connects").0));
    }
    victim.does("close");
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("FIN_WAIT2", 2)]);
    let report = tracer.report();
    assert_eq!(tracer.status(), 0);
    let closed = report.left_while_alive();
    let expected = [
        format!("3 fin_wait2 to {}", remote.port()),
        format!("2 fin_wait2 from {}", address.port()),
    ];
    assert_eq!(closed, expected);
    let report = record::of(&report.to_string());
    (address, remote, peers, report)
}

/// What the program says that reads this from stdin.
#[track_caller]
fn piped(report: &Value, options: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = Command::new(programs::sockleak());
    command
        .args(["-o", "json", "free", "--report", "-"])
        .args(options);
    let mut file = tempfile::tempfile().expect("a file");
    write!(file, "{report}").expect("it is ours");
    file.rewind().expect("it is a file");
    let output = command.stdin(file).output().expect("sockleak starts");
    let run = Run {
        status: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8(output.stdout).expect("JSON"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    };
    (run.status, lines(&run), run.stderr)
}

fn what_the_process_closed_itself_is_freed_too() {
    let (address, remote, _peers, report) = closed_itself();
    is_in_use(address);
    let (status, lines, errors) = piped(&report, &[]);
    let plan = ["5 FIN_WAIT2 would_destroy - peer_reset".to_owned()];
    assert_eq!((status, rows(&lines)), (0, plan.to_vec()), "{errors}");
    let outgoing = lines.iter().filter(|line| line["rport"] == remote.port());
    assert!(
        outgoing.clone().all(|line| line["lport"].is_u64()),
        "a look shows the port"
    );
    assert_eq!((outgoing.count(), errors.as_str()), (3, ""));

    let (status, lines, errors) = piped(&report, &["--yes"]);
    let done = ["5 FIN_WAIT2 destroyed - peer_reset".to_owned()];
    assert_eq!((status, rows(&lines)), (0, done.to_vec()), "{errors}");
    judge::counts_timewaits(0);
    let _service = plain_bind(address).expect("the port is free");
    let (status, lines, _) = piped(&report, &["--yes"]);
    assert_eq!((status, rows(&lines)), (0, vec!["5 - gone - -".to_owned()]));
    // Where it was connected from, only the look had told.
    let unknown = lines.iter().filter(|line| line["lport"].is_null()).count();
    assert_eq!(unknown, 3, "{lines:?}");
}

/// The report names it by its own cookie, and not its TCP socket, which is another one for sock_diag.
fn an_mptcp_socket_of_a_report_is_left() {
    let mut victim = Victim::start();
    let address = victim.listen("4 mptcp");
    let _peer = Peer::connect_mptcp(address);
    victim.does("accept 1");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("close");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.left_while_alive().len(), 1, "{report}");
    let report = record::of(&report.to_string());
    let (status, lines, errors) = piped(&report, &["--yes"]);
    let told: Vec<_> = lines
        .iter()
        .map(|line| (&line["action"], &line["reason"]))
        .collect();
    assert_eq!(
        (status, told),
        (1, vec![(&json!("skipped"), &json!("mptcp"))]),
        "{errors}"
    );
}

/// As earlier versions wrote it.
fn a_report_without_cookies_names_the_command() {
    let (address, remote, _peers, mut report) = closed_itself();
    for group in report["left_while_alive"].as_array_mut().expect("a list") {
        let group = group.as_object_mut().expect("an object");
        assert!(group.remove("cookies").is_some() && group.remove("netns").is_some());
    }
    for (options, expected) in [(&[][..], 0), (&["--yes"], 1)] {
        let (status, lines, errors) = piped(&report, options);
        assert_eq!(
            (status, rows(&lines)),
            (expected, Vec::new()),
            "something is left"
        );
        for words in [
            "5 leftovers".to_owned(),
            format!("`sockleak free {}`", address.port()),
            format!("`ss -tan dst {remote}`"),
        ] {
            assert!(errors.contains(&words), "no {words} in {errors}");
        }
    }
    judge::counts_timewaits(5);
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
    let mut report = record::of(line);
    for socket in report["sockets"].as_array_mut().expect("a list") {
        socket["cookie"] = json!(u64::MAX);
        socket["outcome"] = json!("time_wait");
    }
    fs::write(&file, report.to_string()).expect("it is ours");
    let (status, lines) = free_report(&file, &["--yes"]);
    assert_eq!((status, rows(&lines)), (0, vec!["1 - gone - -".to_owned()]));
    serves(&service, &mut connections);
}

fn what_cannot_be_a_report_is_refused() {
    refused(&run(["free", "--report", "/no/such/file"]), "/no/such/file");
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let empty = empty.path().to_str().expect("UTF-8");
    refused(&run(["free", "--report", empty]), "no report");
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
