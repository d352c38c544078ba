//! `sockleak wait`: it returns when a restart succeeds, and not before.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use libtest_mimic::Trial;
use sockleak_tests::binding::New;
use sockleak_tests::judge;
use sockleak_tests::limit::{limit, wait_until};
use sockleak_tests::net::Family;
use sockleak_tests::peer::Peer;
use sockleak_tests::programs;
use sockleak_tests::record;
use sockleak_tests::report::moment;
use sockleak_tests::tracer::{Tracer, run};
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_server_of_a_hundred_clients_without_reuseaddr,
            a_port_that_is_free_already,
            a_timeout_says_what_is_in_the_way,
            a_holder_that_lets_go,
        ],
    )
}

#[track_caller]
fn plain_bind(port: u16) -> String {
    let wildcard = New::plain(Family::Any.address(0).ip());
    wildcard.tries(&mut Victim::start(), port).0
}

/// The story that this tool is for: it says when, it waits that long, and then bind() succeeds.
fn a_server_of_a_hundred_clients_without_reuseaddr() {
    let (mut victim, peers) = Victim::serving("any", 100);
    let port = peers[0].remote().port();
    let peers: Vec<_> = peers.into_iter().map(Peer::closes_when_closed).collect();
    victim.killed_by(libc::SIGKILL);
    for peer in peers {
        peer.join().expect("it has closed");
    }
    wait_until("TIME_WAIT", || judge::count(port, "TIME_WAIT") == 100);
    let told = run(["port", &port.to_string(), "-ojson"]);
    assert_eq!(told.status, 1, "{}", told.stderr);
    let told = record::of(&told.stdout);
    let verdict = &told["restart"][0]["verdicts"][0];
    let (earliest, latest) = (moment(&verdict["free_at"]), moment(&verdict["free_at_latest"]));
    assert_eq!(plain_bind(port), "in_use");

    let mut waiting = Tracer::spawn(Command::new(programs::sockleak()).args(["wait", &port.to_string()]));
    let status = waiting.status_within(Duration::from_secs(60) + limit());
    let bound = plain_bind(port);
    let now = Timestamp::now();
    assert_eq!((status, bound.as_str()), (0, "ok"), "{}", waiting.stderr());
    assert_eq!(waiting.stdout() + &waiting.stderr(), "");
    assert!(now >= earliest, "free at {now}, said {earliest}");
    let late = now.duration_since(latest);
    assert!(
        late.unsigned_abs() < limit() || late.is_negative(),
        "free at {now}, said {latest}"
    );
}

fn a_port_that_is_free_already() {
    let mut victim = Victim::start();
    let port = victim.listen("4").port();
    victim.killed_by(libc::SIGKILL);
    let waited = run(["wait", &port.to_string()]);
    assert_eq!(waited.status, 0, "{}", waited.stderr);
    let waited = run(["wait", &port.to_string(), "--timeout", "0s", "-ojson"]);
    assert_eq!(waited.status, 0, "{}", waited.stderr);
    let told = record::of(&waited.stdout);
    assert_eq!(told["type"], "port");
}

fn a_timeout_says_what_is_in_the_way() {
    let mut victim = Victim::start();
    let port = victim.listen("4 reuseaddr").port();
    let began = Instant::now();
    let waited = run(["wait", &port.to_string(), "--timeout", "300ms", "--reuseaddr"]);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(waited.status, 1, "{}", waited.stderr);
    assert!(waited.stdout.is_empty(), "{}", waited.stdout);
    assert!(waited.stderr.contains("listener"), "{}", waited.stderr);
}

fn a_holder_that_lets_go() {
    let mut victim = Victim::start();
    let port = victim.listen("4").port();
    let mut waiting = Tracer::start(["wait", &port.to_string(), "--timeout", "60s"]);
    // It has looked once, and sleeps until the next time.
    let syscall = format!("/proc/{}/syscall", waiting.pid());
    let sleeps = format!("{} ", libc::SYS_clock_nanosleep);
    wait_until("its first look", || {
        fs::read_to_string(&syscall).is_ok_and(|call| call.starts_with(&sleeps))
    });
    victim.killed_by(libc::SIGKILL);
    assert_eq!(waiting.status(), 0, "{}", waiting.stderr());
    assert_eq!(plain_bind(port), "ok");
}
