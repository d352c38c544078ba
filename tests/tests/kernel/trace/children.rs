//! Children that die early or come about in unusual ways, and processes that get the number of a dead one.

use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::death;
use sockleak_tests::limit::wait_until;
use sockleak_tests::programs;
use sockleak_tests::report::moment;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            children_that_are_killed_before_they_run,
            a_vforked_child_that_dies_before_its_exec,
            a_spawned_child_without_sockets_is_silent,
            a_spawned_child_with_sockets_is_reported,
            a_child_that_uses_a_socket_is_known_by_its_program,
        ],
    );
    tests.extend(sandboxed(
        &[Need::ChosenPid],
        named![
            a_stranger_with_the_number_of_the_dead_is_nobody,
            a_child_with_the_number_of_a_dead_target_is_reported,
            five_children_with_one_number_are_five,
            a_dead_child_does_not_wait_for_whoever_has_its_number,
            a_program_is_not_told_of_whoever_has_its_number,
        ],
    ));
    tests
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];
/// The same sockets while their first owner lives.
const HELD: [&str; 2] = [
    "1 LISTEN held inherited holder",
    "2 ESTABLISHED held inherited holder",
];

/// The kernel ends such a child on its way to its first instruction, with a whole table of descriptors.
fn children_that_are_killed_before_they_run() {
    const COUNT: usize = 50;
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let pids = victim.does(&format!("child killed-at-once {COUNT}"));
    let reports = tracer.reports(COUNT);
    for pid in pids.split(' ').map(|pid| pid.parse().expect("a process id")) {
        let report = &reports[&pid];
        report.shows(&HELD);
        let death = &report["death"];
        assert_eq!(
            (&death["signal"], &death["core_dumped"]),
            (&9.into(), &false.into()),
            "{death}"
        );
        assert_eq!(
            death["sent_by"],
            json!({"pid": victim.pid(), "comm": "victim"}),
            "{death}"
        );
        for socket in report.sockets() {
            assert_eq!(socket["holders"][0]["pid"], victim.pid(), "{socket}");
        }
    }
    let status = victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
}

/// It runs in the memory of its parent, which waits for it, and has a table of its own.
fn a_vforked_child_that_dies_before_its_exec() {
    for (way, death) in [
        ("_exit 3", json!(["exit", null, 3])),
        // Not one that dumps core: before 5.16 the dump ends every process that has the same memory.
        ("raise 15", json!(["signal", "TERM", null])),
    ] {
        let (mut victim, _peers) = Victim::serving("4", 2);
        let mut tracer = Tracer::attach(victim.pid(), &[]);
        let child = victim.does(&format!("child vforked {way}"));
        let report = tracer.report();
        report.shows(&HELD);
        assert_eq!(report["process"]["pid"].to_string(), child, "{report}");
        let told = ["cause", "signal_name", "exit_code"].map(|key| &report["death"][key]);
        assert_eq!(json!(told), death, "{report}");
        let status = victim.dies("_exit 4");
        let report = tracer.report();
        tracer.finishes();
        report.shows(&IDLE);
        death::agrees_with_wait(&report, status);
    }
}

/// posix_spawn() is clone() with CLONE_VM and CLONE_VFORK, and the exec closes what the child had inherited.
fn a_spawned_child_without_sockets_is_silent() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("child spawned");
    let status = victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    assert_eq!(report["process"]["pid"], victim.pid(), "{report}");
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
    assert_eq!(tracer.passed("transition").count(), 0);
}

fn a_spawned_child_with_sockets_is_reported() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    victim.does("keep-on-exec");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let child = victim.does("child spawned");
    let report = tracer.report();
    report.shows(&HELD);
    assert_eq!(report["process"]["pid"].to_string(), child, "{report}");
    assert_eq!(report["process"]["comm"], "exe", "{report}");
    assert_eq!(report["death"]["exit_code"], 7, "{report}");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
}

/// It dies soon after its exec: what /proc tells of it is read when it uses a socket, for later is too late.
fn a_child_that_uses_a_socket_is_known_by_its_program() {
    let program = programs::victim();
    let script = "read go; for each in 1 2 3; do \"$0\" hello; done; read end";
    let mut shell = Victim::spawn(Command::new("sh").args(["-c", script]).arg(&program));
    let mut tracer = Tracer::attach(shell.pid(), &[]);
    shell.tell("go");
    for transitions in 1..=3 {
        shell.answer();
        shell.does("pairs 2 127.0.0.1");
        shell.does("close 1");
        while tracer.passed("transition").count() < transitions {
            tracer.passes();
        }
        shell.tell("die raise 9");
        let report = tracer.report();
        assert_eq!(report["death"]["signal"], 9, "{report}");
        assert_eq!(report["process"]["comm"], "victim", "{report}");
        assert_eq!(report["process"]["exe"].as_str(), program.to_str(), "{report}");
    }
    shell.tell("end");
    assert_eq!(tracer.report()["process"]["pid"], shell.pid());
    tracer.finishes();
}

/// What it does and how it dies is nobody's: there is no report of it, and nothing is added to the dead one's.
fn a_stranger_with_the_number_of_the_dead_is_nobody() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut other = Victim::start();
    let mut stranger = Victim::start();
    let mut tracer = Tracer::attach_all([victim.pid(), other.pid()], &[]);
    let status = victim.killed_by(libc::SIGKILL);
    // Once before the report of the dead one is made, and once after it.
    let namesake = stranger.forks(&format!("child numbered {}", victim.pid()));
    assert_eq!(namesake, victim.pid());
    stranger.kill_child(namesake);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"], victim.pid(), "{report}");
    report.reads(&IDLE);
    death::agrees_with_wait(&report, status);
    assert_eq!(report["left_while_alive"], json!([]), "{report}");
    stranger.does("child reaped");
    stranger.forks(&format!("child numbered {}", victim.pid()));
    stranger.kill_child(namesake);
    other.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    assert_eq!(report["process"]["pid"], other.pid(), "{report}");
    assert_eq!(tracer.passed("transition").count(), 0);
}

/// The number means two processes of the same trace, one after the other.
fn a_child_with_the_number_of_a_dead_target_is_reported() {
    let mut target = Victim::start();
    let (mut parent, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach_all([target.pid(), parent.pid()], &[]);
    target.dies("_exit 3");
    let report = tracer.report();
    assert_eq!(report["death"]["exit_code"], 3, "{report}");
    report.shows(&[]);
    let child = parent.forks(&format!("child numbered {}", target.pid()));
    assert_eq!(child, target.pid());
    parent.kill_child(child);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"], child, "{report}");
    assert_eq!(report["death"]["signal"], 9, "{report}");
    assert_eq!(report.left_while_alive().len(), 1, "{report}");
    parent.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    report.reads(&IDLE);
}

/// Each of them is dead and reaped before the next one is made, and none was reported yet.
fn five_children_with_one_number_are_five() {
    const CHILDREN: usize = 5;
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let answer = victim.does(&format!("child reborn {CHILDREN}"));
    let (pid, ports) = answer.split_once(' ').expect("a number, and ports");
    let mut ports: Vec<u64> = ports
        .split(' ')
        .map(|port| port.parse().expect("a port"))
        .collect();
    let mut told = Vec::new();
    for _ in 0..CHILDREN {
        let report = tracer.report();
        assert_eq!(report["process"]["pid"].to_string(), pid, "{report}");
        assert_eq!(report["death"]["signal"], 9, "{report}");
        let own = |socket: &&Value| socket["holders"] == json!([]);
        let listeners: Vec<_> = report.in_state("LISTEN").into_iter().filter(own).collect();
        let [listener] = listeners[..] else {
            panic!("not one listener of its own: {report}")
        };
        told.push(listener["lport"].as_u64().expect("a port"));
        let own = report.sockets().iter().filter(own).count();
        assert_eq!(own, 3, "a listener and both ends of a connection: {report}");
    }
    told.sort_unstable();
    ports.sort_unstable();
    assert_eq!(told, ports);
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.report()["process"]["pid"], victim.pid());
    tracer.finishes();
}

/// sockleak learns of the death when another child has the number already, which lives on.
fn a_dead_child_does_not_wait_for_whoever_has_its_number() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    tracer.stops();
    let answer = victim.does("child reborn 1");
    let (pid, _) = answer.split_once(' ').expect("a number, and a port");
    let child = victim.forks(&format!("child numbered {pid}"));
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"], child, "{report}");
    assert_eq!(
        report["death"]["sent_by"]["pid"], child,
        "it killed itself: {report}"
    );
    // What it had inherited is also held by the one that has its number.
    let pids = |socket: &Value| {
        let holders = socket["holders"].as_array().expect("a list").iter();
        let mut pids: Vec<_> = holders.filter_map(|holder| holder["pid"].as_u64()).collect();
        pids.sort_unstable();
        pids
    };
    let mut both = [victim.pid(), child].map(u64::from);
    both.sort_unstable();
    let held = report.sockets().iter().map(pids).filter(|pids| *pids == both);
    assert_eq!(held.count(), 2, "the victim's listener and connection: {report}");
    victim.kill_child(child);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"], child, "{report}");
    assert_ne!(report["death"]["sent_by"]["pid"], child, "{report}");
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.report()["process"]["pid"], victim.pid());
    tracer.finishes();
}

/// sockleak learns of the exec when another child has the number already.
fn a_program_is_not_told_of_whoever_has_its_number() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("keep-on-exec");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    tracer.stops();
    let pid = victim.does("child spawned");
    // /proc tells when a process started in hundredths of a second.
    let ended = Instant::now();
    wait_until("another tick", || ended.elapsed() > Duration::from_millis(20));
    let child = victim.forks(&format!("child numbered {pid}"));
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"].to_string(), pid, "{report}");
    assert_eq!(report["death"]["exit_code"], 7, "{report}");
    let (started, died) = (&report["process"]["started"], &report["death"]["time"]);
    assert!(moment(started) <= moment(died), "{report}");
    victim.kill_child(child);
    tracer.report();
    victim.killed_by(libc::SIGKILL);
    tracer.report();
    tracer.finishes();
}
