//! `--wait`: what is free again when, told before and seen after.

use jiff::SignedDuration;
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::report::{Report, a_second, moment};
use sockleak_tests::sandbox::{short_fin_timeout, sysctl};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            fin_wait2_is_free_after_its_timeout,
            an_orphan_is_free_when_the_kernel_gives_up,
            a_peer_that_comes_back_frees_at_once,
            nothing_left_means_nothing_to_wait_for,
            a_living_child_holds_up_neither_the_looks_nor_the_end,
        ],
    )
}

/// The report told the moment, and the socket was there before and not after.
#[track_caller]
fn came_true(report: &Report, freed: &Value) {
    let is_it = |socket: &&Value| socket["rport"] == freed["rport"] && socket["lport"] == freed["lport"];
    let socket = report
        .sockets()
        .iter()
        .find(is_it)
        .expect("a socket of the report");
    assert_eq!(socket["free_rule"], freed["free_rule"]);
    let (before, after) = (moment(&freed["not_before"]), moment(&freed["time"]));
    assert!(before <= after, "{freed}");
    assert!(
        moment(&socket["free_at"]) <= after + SignedDuration::from_millis(100),
        "{freed} too early for {socket}"
    );
    assert!(
        before <= moment(&socket["free_at_latest"]) + a_second(),
        "{freed} too late for {socket}"
    );
    let port = freed["lport"]
        .as_u64()
        .and_then(|port| port.try_into().ok())
        .expect("a port");
    let is_there = judge::of_port(port)
        .iter()
        .any(|entry| u64::from(entry.remote.port()) == freed["rport"]);
    assert!(!is_there, "the kernel still has {freed}");
}

fn fin_wait2_is_free_after_its_timeout() {
    short_fin_timeout();
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    for _ in 0..2 {
        came_true(&report, &tracer.record("freed"));
    }
    tracer.finishes();
}

/// The child has none of the sockets, but it is followed as long as it lives.
fn a_living_child_holds_up_neither_the_looks_nor_the_end() {
    short_fin_timeout();
    let mut victim = Victim::start();
    let child = victim.forks("fork");
    let address = victim.listen("4");
    let _peers = victim.accept(address, 1);
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    came_true(&report, &tracer.record("freed"));
    assert!(
        std::path::Path::new(&format!("/proc/{child}")).exists(),
        "the child lives"
    );
    tracer.signal(libc::SIGINT);
    tracer.finishes();
}

/// Five retransmissions, each after twice the time of the one before.
fn an_orphan_is_free_when_the_kernel_gives_up() {
    sysctl("ipv4/tcp_orphan_retries", 5);
    let (mut victim, peers) = Victim::serving("4", 1);
    peers[0].cut_off();
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 peer_unreachable retransmits",
    ]);
    came_true(&report, &tracer.record("freed"));
    tracer.finishes();
}

/// A reset by the peer ends the leftover long before its timer.
fn a_peer_that_comes_back_frees_at_once() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let mut peers = victim.accept(address, 1);
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    // Data for a socket without owner is answered by a reset.
    peers[0].send(b"still there?");
    wait_until("the reset", || judge::of_port(address.port()).is_empty());
    let freed = tracer.record("freed");
    assert!(
        moment(&freed["time"]) < moment(&report.in_state("ESTABLISHED")[0]["free_at"]),
        "{freed}"
    );
    tracer.finishes();
}

fn nothing_left_means_nothing_to_wait_for() {
    let mut victim = Victim::start();
    victim.listen("4");
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&["1 LISTEN closed listener now"]);
    tracer.finishes();
}
