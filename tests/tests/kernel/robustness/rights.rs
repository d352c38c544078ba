//! What is missing is named, and what may not be looked at is unknown: neither closed nor none.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::net::{self, Family, checked};
use sockleak_tests::peer::Peer;
use sockleak_tests::report::Report;
use sockleak_tests::rights::{
    BPF, Capability, DAC_READ_SEARCH, DOCUMENTED, PERFMON, SETGID, SETUID, SYS_ADMIN, SYS_PTRACE, forbid_bpf,
    keep_only, mount_proc, rule_a_user_namespace, without,
};
use sockleak_tests::tracer::{Run, Tracer, finish};
use sockleak_tests::victim::Victim;
use sockleak_tests::{programs, record, sandbox};

use crate::robustness::refusals::{public_copy, public_copy_of, refused};
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            capabilities_that_bpf_lacks_are_named,
            a_filter_that_forbids_bpf_is_named,
            capabilities_of_a_user_namespace_do_not_count,
            a_command_as_another_user,
            the_documented_capabilities_are_enough,
            processes_that_may_not_be_looked_into,
            a_namespace_that_may_not_be_entered,
            a_holder_in_a_namespace_that_may_not_be_entered,
            a_namespace_that_may_not_be_searched_for,
            leftovers_that_go_out_of_sight,
            processes_that_are_hidden,
            a_bound_socket_that_may_not_be_seen,
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

/// Attaches as nobody with these capabilities, from this network namespace or from the first one; and what `watch` says.
#[track_caller]
fn attach_with(
    capabilities: &[Capability],
    from_outside: bool,
    pid: u32,
    options: &[&str],
) -> (Tracer, Value) {
    let (_folder, sockleak) = public_copy();
    let mut command = Command::new(sockleak);
    command.args(["-o", "json", "--once", "--pid", &pid.to_string()]);
    command.args(options);
    if from_outside {
        let outside = sandbox::outside();
        // SAFETY: setns is a system call that needs no lock and no memory.
        unsafe {
            command.pre_exec(move || checked(libc::setns(outside.as_raw_fd(), libc::CLONE_NEWNET)).map(drop));
        }
    }
    keep_only(&mut command, capabilities);
    let mut tracer = Tracer::spawn(&mut command);
    let watch = tracer.watches();
    (tracer, watch)
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
        let told = record::of(&port.stdout);
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
    let told = record::of(&port.stdout);
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
    let path = file.to_str().expect("UTF-8");
    let make = ["--user", "1:1", "--", "sh", "-c", ": > \"$0\"", path];
    let run_as = |more: &[Capability]| run_with(&[&DOCUMENTED, more].concat(), &make);
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
            run.stderr.contains("cannot run sh as the user 1:1"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains(missing), "no `{missing}` in {}", run.stderr);
        assert!(!run.stderr.contains("watching"), "{}", run.stderr);
        assert!(!file.exists(), "with {more:?}");
    }
    // It is refused later, and the command that waits belongs to another user already.
    let run = run_with(&[SETGID, SETUID], &make);
    assert_eq!(run.status, 125, "{}", run.stderr);
    assert!(run.stderr.contains("missing CAP_BPF"), "{}", run.stderr);
    assert!(!file.exists());
    let run = run_as(&[SETGID, SETUID]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(fs::metadata(&file).expect("the command ran").uid(), 1);
}

/// Of another user's process in another network namespace.
fn the_documented_capabilities_are_enough() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let (mut tracer, watch) = attach_with(&DOCUMENTED, true, victim.pid(), &[]);
    assert_eq!(json!([watch["listeners"], watch["connections"]]), json!([1, 2]));
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report["restart"][0]["verdicts"][0]["bind"], "in_use", "{report}");
    let told = report["blind"].to_string();
    assert!(!told.contains("CAP_"), "{told}");
}

/// What the victim has open cannot be counted. What is left can be seen, for that is in the own network namespace.
fn processes_that_may_not_be_looked_into() {
    for missing in [SYS_PTRACE, DAC_READ_SEARCH] {
        let mut victim = Victim::start();
        let address = victim.listen("4");
        let child = victim.forks("fork");
        let _peers = victim.accept(address, 2);
        let (mut tracer, watch) = attach_with(&without(&[missing]), false, victim.pid(), &[]);
        assert_eq!(
            json!([watch["listeners"], watch["connections"]]),
            json!([null, null])
        );
        tracer.says_on_stderr("open sockets could not be counted");
        victim.killed_by(libc::SIGKILL);
        let report = tracer.report();
        assert_eq!(report["summary"]["fin_wait2"], 2, "{report}");
        let listener = report.listener();
        assert_eq!(listener["outcome"], "held", "{report}");
        // Who has it is told, or that it is not known and why.
        if listener["holders"] == json!([]) {
            assert_eq!(listener["why"], "unknown", "{report}");
            is_blind_for(&report["blind"], "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH");
        } else {
            assert_eq!(listener["holders"][0]["pid"], child, "{report}");
        }
    }
}

/// A victim with a listener and two connections, of which it closes one; its report as seen from outside, which may not
/// look into its network namespace.
#[track_caller]
fn report_from_outside(capabilities: &[Capability]) -> (Report, Vec<Peer>) {
    let (mut victim, peers) = Victim::serving("4", 3);
    let (mut tracer, watch) = attach_with(capabilities, true, victim.pid(), &[]);
    assert_eq!(
        json!([watch["listeners"], watch["connections"]]),
        json!([null, null])
    );
    victim.does("close 1");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    (report, peers)
}

/// Its end was seen, so the listener is closed. What it left is not.
#[track_caller]
fn is_unknown(report: &Report, capability: &str) {
    report.reads(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED unknown netns_unreachable unknown",
    ]);
    let port = &report.listener()["lport"];
    assert_eq!(report.left_while_alive(), [format!("1 unknown from {port}")]);
    let restart = report["restart"].as_array().expect("a list");
    assert_eq!(restart.len(), 1, "{report}");
    for verdict in restart[0]["verdicts"].as_array().expect("a list") {
        let told = json!([
            verdict["bind"],
            verdict["listen"],
            verdict["blocked_by"],
            verdict["free_at"]
        ]);
        assert_eq!(told, json!(["unknown", "unknown", [], null]));
    }
    is_blind_for(&report["blind"], capability);
}

fn a_namespace_that_may_not_be_entered() {
    let (report, _peers) = report_from_outside(&without(&[SYS_ADMIN]));
    is_unknown(&report, "CAP_SYS_ADMIN");
}

/// A holder that /proc shows is in the way of a restart, whatever else is.
fn a_holder_in_a_namespace_that_may_not_be_entered() {
    let mut victim = Victim::start();
    victim.listen("4");
    let child = victim.forks("fork");
    let (mut tracer, _) = attach_with(&without(&[SYS_ADMIN]), true, victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.reads(&["1 LISTEN held inherited holder"]);
    assert_eq!(report.listener()["holders"][0]["pid"], child, "{report}");
    let plain = &report["restart"][0]["verdicts"][0];
    assert_eq!(
        json!([
            plain["bind"],
            plain["blocked_by"][0]["kind"],
            plain["blocked_by"][0]["pid"]
        ]),
        json!(["in_use", "listener", child])
    );
    is_blind_for(&report["blind"], "CAP_SYS_ADMIN");
}

fn a_namespace_that_may_not_be_searched_for() {
    let (report, _peers) = report_from_outside(&without(&[SYS_PTRACE]));
    is_unknown(&report, "CAP_SYS_PTRACE");
}

/// The tracer may look into a process of its own user, and so into its network namespace: while the process is there.
/// Another user's process keeps the namespace, and the leftovers in it.
fn leftovers_that_go_out_of_sight() {
    let (_folder, victim) = public_copy_of(&programs::victim());
    let mut command = Command::new(victim);
    keep_only(&mut command, &[]);
    let mut victim = Victim::spawn(&mut command);
    let address = victim.listen("4");
    let _peers = victim.accept(address, 2);
    let (mut tracer, watch) = attach_with(&without(&[SYS_PTRACE]), true, victim.pid(), &["--wait"]);
    assert_eq!(json!([watch["listeners"], watch["connections"]]), json!([1, 2]));
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    tracer.says_on_stderr("2 leftovers in net:[");
    tracer.finishes();
    assert_eq!(tracer.passed("freed").count(), 0);
}

/// A process that lives is not called dead, and those that may have a socket are not left out without a word.
fn processes_that_are_hidden() {
    let victim = Victim::start();
    let pid = victim.pid().to_string();
    for option in [c"hidepid=1", c"hidepid=2"] {
        let hidden = |capabilities: &[Capability], arguments: &[&str]| {
            let (_folder, sockleak) = public_copy();
            let mut command = Command::new(sockleak);
            mount_proc(&mut command, option);
            keep_only(&mut command, capabilities);
            finish(command.args(arguments))
        };
        let run = hidden(&without(&[SYS_PTRACE]), &["--pid", &pid]);
        refused(&run, &format!("process {pid} is hidden"));
        assert!(run.stderr.contains("CAP_SYS_PTRACE"), "{}", run.stderr);
        let port = hidden(&without(&[SYS_PTRACE]), &["-o", "json", "port", "9"]);
        let told = record::of(&port.stdout);
        is_blind_for(&told["blind"], "network namespaces of some processes");
    }
}

/// `bind()` is refused by a socket that is only bound. Who may not read the kernel's list of a port, or is in another PID
/// namespace than its owner, sees it since 6.8 alone, and otherwise says that more may be there.
fn a_bound_socket_that_may_not_be_seen() {
    let mut victim = Victim::start();
    let taken: SocketAddr = victim.does("bind 4").parse().expect("an address");
    let bind =
        |address: SocketAddr| net::bind(net::socket(address, 0, 0).expect("a socket"), address).is_ok();
    assert!(!bind(taken), "it is in use");
    let port = taken.port().to_string();
    let as_nobody = |arguments: &[&str]| run_with(&[], arguments);
    for run in [&as_nobody as &dyn Fn(&[&str]) -> Run, &run_in_a_container] {
        let there = verdict(&run(&["-o", "json", "port", &port]), 1);
        assert!(there == "in_use" || there == "unknown", "{there}");
        // Of a port that is free it cannot know more.
        let is_listed = there == "in_use";
        assert!(bind(Family::V4.address(9)), "it is free");
        let free = verdict(&run(&["-o", "json", "port", "9"]), i32::from(!is_listed));
        assert_eq!(free, if is_listed { "ok" } else { "unknown" });
        let wait = run(&["wait", "9", "--timeout", "1m"]);
        assert_eq!(wait.status, if is_listed { 0 } else { 2 }, "{}", wait.stderr);
    }
}

#[track_caller]
fn run_in_a_container(arguments: &[&str]) -> Run {
    let mut command = Command::new(programs::sockleak());
    command.args(arguments);
    // SAFETY: Between fork() and exec() it makes system calls only.
    unsafe { command.pre_exec(sandbox::continue_in_a_new_pid_namespace) };
    finish(&mut command)
}

/// What it says of a plain `bind()`, with that exit status.
#[track_caller]
fn verdict(run: &Run, status: i32) -> String {
    assert_eq!(run.status, status, "{}{}", run.stdout, run.stderr);
    let told = record::of(&run.stdout);
    let bind = &told["restart"][0]["verdicts"][0]["bind"];
    bind.as_str().expect("a word").to_owned()
}
