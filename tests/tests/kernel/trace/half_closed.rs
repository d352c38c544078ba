//! Connections of which one direction was closed before the death, and sockets that are none.

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::peer::{self, Peer};
use sockleak_tests::sandbox::short_fin_timeout;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use super::countdown::kept;
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            close_wait_with_unread_data_is_reset,
            a_shutdown_that_was_not_acknowledged,
            closed_both_ways_and_still_open,
            the_addresses_of_a_connect_under_way,
            sockets_of_other_kinds_are_not_counted,
            a_short_fin_timeout,
            long_zero_window_of_a_living_peer,
        ],
    )
}

/// The peer sent something and then its FIN, which is no byte (trap 25): there is unread data nevertheless.
fn close_wait_with_unread_data_is_reset() {
    let (mut victim, mut peers) = Victim::serving("4", 1);
    let port = peers[0].remote().port();
    peers[0].send(b"twelve bytes");
    peers[0].shut_down();
    wait_until("CLOSE_WAIT", || judge::count(port, "CLOSE_WAIT") == 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 CLOSE_WAIT reset unread_data now",
    ]);
    assert_eq!(report.in_state("CLOSE_WAIT")[0]["unread_bytes"], 12);
    assert_eq!(peers[0].end(), peer::RESET);
}

fn a_shutdown_that_was_not_acknowledged() {
    let (mut victim, peers) = Victim::serving("4", 1);
    peers[0].cut_off();
    victim.does("shutdown 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 FIN_WAIT1 fin_wait1 peer_unreachable retransmits",
    ]);
    assert_eq!(report.in_state("FIN_WAIT1")[0]["shutdown"], true);
}

/// Both FINs came through: the time-wait exists beside the open descriptor.
fn closed_both_ways_and_still_open() {
    let (mut victim, peers) = Victim::serving("4", 1);
    let port = peers[0].remote().port();
    victim.does("shutdown 0");
    peers[0].shut_down();
    wait_until("TIME_WAIT", || judge::count(port, "TIME_WAIT") == 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&[
        "1 LISTEN closed listener now",
        "1 CLOSE time_wait shutdown_before timewait_timer",
    ]);
}

/// The kernel chooses the local port before it sends the SYN, so the whole 4-tuple is known.
fn the_addresses_of_a_connect_under_way() {
    let silent = peer::silent_listener();
    let remote = silent.local_addr().expect("it is bound");
    let mut victim = Victim::start();
    victim.does(&format!("connecting {remote}"));
    let sockets = judge::sockets();
    let own = sockets.iter().find(|entry| entry.state == "SYN_SENT");
    let own = own.expect("the SYN is not answered").clone();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 SYN_SENT closed never_connected now"]);
    let socket = report.in_state("SYN_SENT")[0];
    assert_eq!(
        [&socket["lport"], &socket["rport"]],
        [own.local.port(), remote.port()]
    );
    assert_eq!(socket["inode"], own.inode);
}

fn sockets_of_other_kinds_are_not_counted() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("other-kinds");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
}

/// FIN_WAIT2 obeys `tcp_fin_timeout`, and never becomes a TIME_WAIT when its peer stays silent (trap 16).
fn a_short_fin_timeout() {
    short_fin_timeout();
    let (mut victim, peers) = Victim::serving("4", 1);
    let port = peers[0].remote().port();
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let freed = tracer.record("freed");
    assert_eq!(freed["free_rule"], "fin_timeout", "{freed}");
    assert_eq!(judge::of_port(port).len(), 0);
    tracer.finishes();
}

/// A peer that answers every probe keeps the orphan until the probes are two minutes apart (`tcp_probe_timer`).
fn long_zero_window_of_a_living_peer() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peer = Peer::connect_narrow(address);
    victim.does("accept 1");
    victim.does("fill 0");
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 closed_by_kernel persist",
    ]);
    // Some six minutes, in pieces that a test may wait.
    for _ in 0..30 {
        if judge::count(address.port(), "FIN_WAIT1") == 0 {
            break;
        }
        wait_for_a_piece(address.port());
    }
    let freed = tracer.record("freed");
    kept(report.in_state("ESTABLISHED")[0], &freed);
    tracer.finishes();
}

/// Until it is gone, or some seconds have passed.
fn wait_for_a_piece(port: u16) {
    let start = std::time::Instant::now();
    wait_until("some seconds", || {
        judge::count(port, "FIN_WAIT1") == 0 || start.elapsed().as_secs() >= 15
    });
}
