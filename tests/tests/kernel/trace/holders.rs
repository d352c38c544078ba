//! Sockets that another process holds still.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::judge;
use sockleak_tests::peer::Peer;
use sockleak_tests::report::Report;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_child_inherited_the_listener,
            a_child_inherited_everything,
            a_child_of_a_watched_process_inherited_the_listener,
            a_listener_was_passed_on,
            a_listener_is_in_flight,
            a_child_shares_the_table,
            workers_that_die_with_their_master,
            workers_that_live_on,
            a_worker_that_dies_alone,
        ],
    )
}

/// The holders of a socket without its descriptor, which must be one that the process has.
#[track_caller]
pub fn holders(socket: &Value) -> Vec<Value> {
    let without_fd = |holder: &Value| {
        let pid = holder["pid"].as_u64().expect("a process id");
        let inodes = judge::socket_inodes(u32::try_from(pid).expect("a process id"));
        assert!(
            inodes.contains(&socket["inode"].as_u64().expect("an inode")),
            "{socket}"
        );
        assert!(holder["fd"].as_u64().is_some_and(|fd| fd > 2), "{socket}");
        json!([pid, holder["comm"], holder["how"]])
    };
    socket["holders"]
        .as_array()
        .expect("a list")
        .iter()
        .map(without_fd)
        .collect()
}

fn a_child_inherited_the_listener() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let child = victim.forks("fork");
    let _peers = victim.accept(address, 2);
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(
        holders(report.listener()),
        [json!([child, "victim", "inherited"])]
    );
    assert!(report.listener()["free_at"].is_null(), "{report}");
}

fn a_child_inherited_everything() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let child = victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "2 ESTABLISHED held inherited holder",
    ]);
    for socket in report.sockets() {
        assert_eq!(holders(socket), [json!([child, "victim", "inherited"])]);
    }
}

fn a_child_of_a_watched_process_inherited_the_listener() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    let child = victim.forks("fork");
    let _peers = victim.accept(address, 1);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(
        holders(report.listener()),
        [json!([child, "victim", "inherited"])]
    );
}

/// The courier was forked before there was a listener, and got it over a Unix socket.
fn a_listener_was_passed_on() {
    let mut victim = Victim::start();
    let courier = victim.forks("courier receives");
    victim.listen("4");
    victim.does("pass");
    victim.answer();
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    // The courier is a child and has it under another number: it was passed, or moved after the fork.
    report.shows(&["1 LISTEN held unknown holder"]);
    assert_eq!(holders(report.listener()), [json!([courier, "victim", null])]);
}

/// A message that nobody has received yet holds the listener, and no table has a descriptor of it.
fn a_listener_is_in_flight() {
    let mut victim = Victim::start();
    victim.forks("courier ignores");
    victim.listen("4");
    victim.does("pass");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.listener()["outcome"], "held", "{report}");
    assert_eq!(report.listener()["holders"], json!([]), "{report}");
    report.agrees_with_the_kernel();
}

fn a_child_shares_the_table() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let child = victim.forks("fork-files");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held shared_table holder",
        "1 ESTABLISHED held shared_table holder",
    ]);
    assert_eq!(
        holders(report.listener()),
        [json!([child, "victim", "shared_table"])]
    );
}

/// A master and its three workers, each of which has accepted two connections.
#[track_caller]
fn prefork() -> (Victim, Vec<u32>, Vec<Peer>) {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    victim.tell("workers 3 2");
    let peers = (0..6).map(|_| Peer::connect(address)).collect();
    let workers = (0..3).map(|_| victim.child_answers()).collect();
    (victim, workers, peers)
}

fn workers_that_die_with_their_master() {
    let (mut victim, workers, _peers) = prefork();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.group_killed();
    let mut reports: Vec<Report> = (0..4).map(|_| tracer.report()).collect();
    tracer.finishes();
    let is_master = |report: &Report| report["process"]["pid"] == victim.pid();
    let master = reports.remove(
        reports
            .iter()
            .position(is_master)
            .expect("a report of the master"),
    );
    master.shows(&["1 LISTEN closed listener now"]);
    for report in &reports {
        report.shows(&[
            "1 LISTEN closed listener now",
            "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        ]);
        assert_eq!(report.listener()["inode"], master.listener()["inode"]);
    }
    let mut reported: Vec<_> = reports
        .iter()
        .filter_map(|report| report["process"]["pid"].as_u64())
        .collect();
    reported.sort_unstable();
    let mut workers: Vec<_> = workers.into_iter().map(u64::from).collect();
    workers.sort_unstable();
    assert_eq!(reported, workers);
}

fn workers_that_live_on() {
    let (mut victim, workers, _peers) = prefork();
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN held inherited holder"]);
    assert_eq!(
        report.listener()["holders"].as_array().map(Vec::len),
        Some(workers.len()),
        "{report}"
    );
}

/// The master holds the listener, and only the worker's own connections are left.
fn a_worker_that_dies_alone() {
    let (victim, workers, _peers) = prefork();
    let mut tracer = Tracer::attach(workers[0], &[]);
    victim.kill_child(workers[0]);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let pids: Vec<_> = holders(report.listener())
        .iter()
        .map(|holder| holder[0].clone())
        .collect();
    assert!(pids.contains(&victim.pid().into()) && pids.len() == 3, "{report}");
    tracer.finishes();
}
