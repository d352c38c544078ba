//! The moments of what a peer may still change: it closes late, comes back, answers late, or does not read.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge::{self, Timer};
use sockleak_tests::limit::wait_until;
use sockleak_tests::net;
use sockleak_tests::peer::Peer;
use sockleak_tests::report::{Report, moment};
use sockleak_tests::sandbox::{short_fin_timeout, sysctl};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use super::countdown::{entry_of, kept, moved_to};
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            a_peer_that_closes_late_stays_within_the_latest_moment,
            a_client_that_reconnects_ends_time_wait,
            a_late_answer_without_timestamps_makes_fin_wait2_long,
            a_closed_window_before_a_silent_peer,
            a_closed_window_that_few_retries_keep_for_ever,
        ],
    );
    tests.extend(sandboxed(
        &[Need::RtoMax],
        named![a_closed_window_before_a_living_peer],
    ));
    tests
}

/// The kernel's timers can be made so short that a test can wait for one that is at its maximum.
pub fn rto_max_is_there() -> bool {
    Path::new("/proc/sys/net/ipv4/tcp_rto_max_ms").exists()
}

fn trace(victim: &mut Victim) -> (Tracer, Report) {
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    (tracer, report)
}

/// The minute of TIME_WAIT begins when the peer closes, and what was promised before allows for that.
fn a_peer_that_closes_late_stays_within_the_latest_moment() {
    short_fin_timeout();
    let (mut victim, peers) = Victim::serving("4", 1);
    let (mut tracer, report) = trace(&mut victim);
    let promise = report.in_state("ESTABLISHED")[0];
    assert_eq!(promise["earlier_by"], "rst", "{promise}");
    wait_until("the last second", || {
        entry_of(promise).is_none_or(|entry| entry.expires < Duration::from_secs(1))
    });
    drop(peers);
    let moved = moved_to(&mut tracer, "TIME_WAIT");
    assert_eq!(moved["earlier_by"], "syn", "{moved}");
    assert!(
        moment(&moved["free_at"]) > moment(&promise["free_at"]),
        "{moved} {promise}"
    );
    assert!(
        moment(&moved["free_at"]) <= moment(&promise["free_at_latest"]),
        "{moved} {promise}"
    );
}

/// Nobody listens any more, so the SYN is answered by an ACK, and that by an RST.
fn a_client_that_reconnects_ends_time_wait() {
    sysctl("ipv4/tcp_rfc1337", 0);
    let mut victim = Victim::start();
    let local = victim.listen("4");
    let peer = victim.accept(local, 1).remove(0);
    let remote = peer.address();
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    let peer = peer.closes_when_closed();
    // The report does not wait for a peer that is late on a busy machine.
    tracer.stops();
    victim.killed_by(libc::SIGKILL);
    peer.join().expect("it has closed");
    wait_until("TIME_WAIT", || judge::count(local.port(), "TIME_WAIT") == 1);
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    let promise = report.in_state("ESTABLISHED")[0];
    assert_eq!(promise["earlier_by"], "syn", "{promise}");
    let client = net::socket(remote, 0, 0).expect("a socket");
    net::bind(&client, remote).expect("the peer had closed second");
    net::connect(&client, local).expect_err("nobody listens");
    let freed = tracer.record("freed");
    assert!(moment(&freed["time"]) < moment(&promise["free_at"]), "{freed}");
    tracer.finishes();
}

/// FIN_WAIT2 lasts three and a half retransmission timeouts at least, which no timestamp has made short again.
fn a_late_answer_without_timestamps_makes_fin_wait2_long() {
    short_fin_timeout();
    sysctl("ipv4/tcp_timestamps", 0);
    // It gives up some six seconds after the death, and sends for the last time after three.
    sysctl("ipv4/tcp_orphan_retries", 3);
    let (mut victim, peers) = Victim::serving("4", 1);
    peers[0].cut_off();
    let (mut tracer, report) = trace(&mut victim);
    let promise = report.in_state("ESTABLISHED")[0];
    assert_eq!(promise["earlier_by"], "ack", "{promise}");
    wait_until("the last but one retransmission", || {
        entry_of(promise).is_some_and(|entry| entry.expires > Duration::from_millis(1300))
    });
    peers[0].plug_in();
    let moved = moved_to(&mut tracer, "FIN_WAIT2");
    let entry = entry_of(&moved).expect("the leftover");
    assert!(entry.expires > Duration::from_secs(8), "{entry:?}");
    assert!(
        moment(&moved["free_at_latest"]) <= moment(&promise["free_at_latest"]),
        "{moved} {promise}"
    );
}

/// A victim whose data waits behind a closed window.
fn stuck() -> (Victim, Peer) {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let peer = Peer::connect_narrow(address);
    victim.does("accept 1");
    victim.does("fill 0");
    let probes = |entry: &judge::Entry| entry.timer == Timer::Persist;
    wait_until("the zero-window probe", || {
        judge::of_port(address.port()).iter().any(probes)
    });
    (victim, peer)
}

#[track_caller]
fn probed(report: &Report) -> &Value {
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 closed_by_kernel persist",
    ]);
    let promise = report.in_state("ESTABLISHED")[0];
    assert_eq!(promise["earlier_by"], "ack", "{promise}");
    promise
}

fn a_closed_window_before_a_silent_peer() {
    sysctl("ipv4/tcp_orphan_retries", 3);
    let (mut victim, peer) = stuck();
    peer.cut_off();
    let (mut tracer, report) = trace(&mut victim);
    kept(probed(&report), &tracer.record("freed"));
    tracer.finishes();
}

/// The peer answers each probe, and the orphan ends when the time between them is as long as it gets.
fn a_closed_window_before_a_living_peer() {
    sysctl("ipv4/tcp_orphan_retries", 4);
    sysctl("ipv4/tcp_rto_max_ms", 2000);
    let (mut victim, _peer) = stuck();
    let (mut tracer, report) = trace(&mut victim);
    kept(probed(&report), &tracer.record("freed"));
    tracer.finishes();
}

/// With few retries that time never gets so long. Only the silent peer has an end then.
fn a_closed_window_that_few_retries_keep_for_ever() {
    sysctl("ipv4/tcp_retries2", 3);
    let (mut victim, peer) = stuck();
    let (mut tracer, report) = trace(&mut victim);
    let promise = probed(&report);
    assert!(promise["free_at"].is_string(), "{promise}");
    assert!(promise["free_at_latest"].is_null(), "{promise}");
    peer.reset();
    let freed = tracer.record("freed");
    assert!(moment(&freed["time"]) < moment(&promise["free_at"]), "{freed}");
    tracer.finishes();
}
