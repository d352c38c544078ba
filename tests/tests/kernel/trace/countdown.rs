//! `--wait`: the moment that was told, how exact it is, and what moves it.

use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge::{self, Entry, Timer};
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::peer::Peer;
use sockleak_tests::report::{Report, a_second, address, moment};
use sockleak_tests::sandbox::{short_fin_timeout, sysctl};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            the_peers_close_starts_a_full_minute,
            the_timer_wheel_fires_within_the_range,
            a_late_ack_frees_last_ack,
            a_late_ack_turns_fin_wait1_into_fin_wait2,
        ],
    )
}

/// Waits until a leftover has moved to that state, and gives the record.
#[track_caller]
pub fn moved_to(tracer: &mut Tracer, state: &str) -> Value {
    loop {
        let moved = tracer.record("moved");
        if moved["state"] == state {
            return moved;
        }
    }
}

/// The kernel's entry of the leftover that a record is about.
pub fn entry_of(record: &Value) -> Option<Entry> {
    let remote = address(&record["raddr"], &record["rport"]);
    let local = address(&record["laddr"], &record["lport"]);
    let is_it = |entry: &Entry| Some(entry.local) == local && Some(entry.remote) == remote;
    judge::sockets().into_iter().find(is_it)
}

/// The moment that was told is the one at which the kernel's timer fires.
#[track_caller]
pub fn agrees_with_the_timer(record: &Value) {
    let entry = entry_of(record).unwrap_or_else(|| panic!("the kernel has no {record}"));
    assert_eq!(
        (entry.state, entry.timer),
        (record["state"].as_str().expect("a state"), Timer::TimeWait)
    );
    let off = moment(&record["free_at"]).duration_since(entry.time + entry.expires);
    assert!(off.abs() <= a_second(), "{record} but the kernel has {entry:?}");
}

/// What a report or a later look promised came true: the leftover went within the range, by that rule.
#[track_caller]
pub fn kept(promise: &Value, freed: &Value) {
    assert_eq!(promise["free_rule"], freed["free_rule"], "{promise} {freed}");
    let (before, after) = (moment(&freed["not_before"]), moment(&freed["time"]));
    assert!(before <= after, "{freed}");
    assert!(
        moment(&promise["free_at"]) <= after,
        "{freed} too early for {promise}"
    );
    assert!(
        before <= moment(&promise["free_at_latest"]),
        "{freed} too late for {promise}"
    );
}

/// FIN_WAIT2 becomes TIME_WAIT, and its timer begins anew.
fn the_peers_close_starts_a_full_minute() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let port = report.listener()["lport"]
        .as_u64()
        .and_then(|port| port.try_into().ok());
    let port = port.expect("a port");
    // The wheel knows no less than a granule, so the old timer must have run for a while.
    let ran = |entry: &Entry| entry.expires < Duration::from_millis(58_500);
    wait_until("a part of the minute", || judge::of_port(port).iter().all(ran));
    drop(peers);
    for _ in 0..2 {
        let moved = moved_to(&mut tracer, "TIME_WAIT");
        assert_eq!(
            (&moved["outcome"], &moved["free_rule"]),
            (&"time_wait".into(), &"timewait_timer".into())
        );
        agrees_with_the_timer(&moved);
        let mut sockets = report.sockets().iter();
        let before = sockets.rfind(|socket| socket["rport"] == moved["rport"]);
        let before = moment(&before.expect("a socket of the report")["free_at"]);
        assert!(
            moment(&moved["free_at"]) > before + SignedDuration::from_secs(1),
            "{moved}"
        );
    }
}

/// The kernel's timers fire late, never early: by up to two seconds for this one at 250 ticks a second.
fn the_timer_wheel_fires_within_the_range() {
    sysctl("ipv4/tcp_fin_timeout", 17);
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let promise = report.in_state("ESTABLISHED")[0];
    let earliest = moment(&promise["free_at"]);
    // The rest of the time until the latest moment is for a peer that closes.
    let minute = SignedDuration::from_secs(60);
    let latest = moment(&promise["free_at_latest"]) - minute;
    assert!(earliest < latest, "{promise}");
    wait_until("the last seconds", || {
        entry_of(promise).is_none_or(|entry| entry.expires < Duration::from_secs(5))
    });
    let mut seen = Timestamp::now();
    let gone = loop {
        let before = Timestamp::now();
        if entry_of(promise).is_none() {
            break Timestamp::now();
        }
        seen = before;
        assert!(seen < latest + a_second(), "the kernel still has {promise}");
        thread::sleep(Duration::from_millis(2));
    };
    let softirq = SignedDuration::try_from(scaled(Duration::from_millis(50))).expect("a small duration");
    assert!(seen <= latest + softirq, "seen at {seen}: {promise}");
    assert!(gone >= earliest, "gone at {gone}: {promise}");
    let freed = tracer.record("freed");
    kept(promise, &freed);
    assert!(
        moment(&freed["not_before"]) <= gone && seen <= moment(&freed["time"]),
        "{freed}"
    );
    tracer.finishes();
}

/// An orphan whose peer is cut off, and comes back before the kernel gives up.
#[track_caller]
fn orphan(closes_first: bool) -> (Tracer, Report, Peer) {
    let (mut victim, mut peers) = Victim::serving("4", 1);
    let peer = peers.remove(0);
    if closes_first {
        peer.shut_down();
    }
    peer.cut_off();
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    (tracer, report, peer)
}

fn a_late_ack_frees_last_ack() {
    let (mut tracer, report, peer) = orphan(true);
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 CLOSE_WAIT last_ack peer_unreachable retransmits",
    ]);
    peer.plug_in();
    let freed = tracer.record("freed");
    let promise = report.in_state("CLOSE_WAIT")[0];
    assert!(entry_of(promise).is_none(), "the kernel still has {freed}");
    assert!(moment(&freed["time"]) < moment(&promise["free_at"]), "{freed}");
    tracer.finishes();
}

fn a_late_ack_turns_fin_wait1_into_fin_wait2() {
    short_fin_timeout();
    let (mut tracer, report, peer) = orphan(false);
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 peer_unreachable retransmits",
    ]);
    peer.plug_in();
    let moved = moved_to(&mut tracer, "FIN_WAIT2");
    agrees_with_the_timer(&moved);
    kept(&moved, &tracer.record("freed"));
    assert!(entry_of(&moved).is_none(), "the kernel still has {moved}");
    tracer.finishes();
}
