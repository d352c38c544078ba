//! A holder that ends after the report: what it lets go is free, or begins to count down.

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::peer::Peer;
use sockleak_tests::sandbox::short_fin_timeout;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::trace::countdown::{agrees_with_the_timer, kept, moved_to};
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            the_holders_end_frees_the_listener_and_starts_fin_wait2,
            the_holders_end_leaves_time_wait,
            a_followed_holder_gets_its_own_report,
        ],
    )
}

const HELD: [&str; 2] = [
    "1 LISTEN held inherited holder",
    "2 ESTABLISHED held inherited holder",
];

/// The record about the listener, which has no peer.
fn is_of_the_listener(record: &Value) -> bool {
    record["raddr"].is_null()
}

fn the_holders_end_frees_the_listener_and_starts_fin_wait2() {
    short_fin_timeout();
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peers = victim.accept(address, 2);
    let child = victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &["--once", "--wait"]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&HELD);
    victim.kill_child(child);
    let freed: Vec<Value> = (0..3).map(|_| tracer.record("freed")).collect();
    tracer.finishes();
    assert!(judge::of_port(address.port()).is_empty());
    let listener: Vec<_> = freed.iter().filter(|record| is_of_the_listener(record)).collect();
    assert_eq!(listener.len(), 1, "{freed:?}");
    assert_eq!(listener[0]["free_rule"], "holder");
    for freed in freed.iter().filter(|record| !is_of_the_listener(record)) {
        let moved = tracer.passed("moved");
        let promise = moved.filter(|moved| moved["rport"] == freed["rport"]).last();
        kept(promise.expect("it was told that it moved"), freed);
    }
}

fn the_holders_end_leaves_time_wait() {
    let (mut victim, peers) = Victim::serving("4", 1);
    let child = victim.forks("fork");
    let address = peers[0].address();
    let _peers: Vec<_> = peers.into_iter().map(Peer::closes_when_closed).collect();
    let mut tracer = Tracer::attach(victim.pid(), &["--once", "--wait"]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&[
        "1 LISTEN held inherited holder",
        "1 ESTABLISHED held inherited holder",
    ]);
    victim.kill_child(child);
    let moved = moved_to(&mut tracer, "TIME_WAIT");
    assert_eq!(moved["rport"], address.port());
    agrees_with_the_timer(&moved);
}

/// Each socket is told to be free once, although two reports had it.
fn a_followed_holder_gets_its_own_report() {
    short_fin_timeout();
    let (mut victim, _peers) = Victim::serving("4", 2);
    let child = victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&HELD);
    victim.kill_child(child);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report["process"]["pid"], child);
    assert_eq!(tracer.status(), 0);
    let rest = tracer.stdout();
    let freed = rest.matches(r#""type":"freed""#).count();
    assert_eq!(freed, 3, "{rest}");
}
