//! What the program's own options make of its connections.

use std::time::Duration;

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::net;
use sockleak_tests::peer::{Peer, RESET};
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            repair_is_silent,
            data_after_close_is_no_reset_by_the_peer,
            a_user_timeout_ends_an_orphan,
            a_short_linger2_shortens_fin_wait2,
            fast_open_leaves_what_any_connection_leaves,
            fast_open_connections_that_were_never_accepted_are_reset,
            two_listeners_at_one_address,
            a_listener_of_another_process_at_the_same_address_holds_nothing,
        ],
    )
}

/// TCP_REPAIR: neither FIN nor RST is sent, and the peer stays as it was (`__tcp_close`, branch of `tp->repair`).
fn repair_is_silent() {
    let (mut victim, peers) = Victim::serving("4", 2);
    victim.does("repair 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED closed repair now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let states: Vec<_> = peers.iter().map(Peer::state).map(judge::state).collect();
    assert_eq!(states, ["ESTABLISHED", "CLOSE_WAIT"]);
}

/// Trap 21: the kernel calls `tcp_reset` when data arrives for an orphan, though no RST came.
fn data_after_close_is_no_reset_by_the_peer() {
    let (mut victim, peers) = Victim::serving("4", 1);
    // Above a minute FIN_WAIT2 stays a full socket.
    victim.does("linger2 100 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let peers: Vec<_> = peers.into_iter().map(Peer::sends_when_closed).collect();
    victim.killed_by(libc::SIGKILL);
    for peer in peers {
        peer.join().expect("its connection ends");
    }
    let report = tracer.report();
    let socket = &report.in_state("ESTABLISHED")[0];
    if socket["outcome"] == "fin_wait2" {
        // The report was made before the data came.
        report.shows(&[
            "1 LISTEN closed listener now",
            "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        ]);
    } else {
        report.shows(&[
            "1 LISTEN closed listener now",
            "1 ESTABLISHED reset data_after_close now",
        ]);
    }
}

/// Unsent data in front of a closed window would wait for minutes; TCP_USER_TIMEOUT counts for an orphan too.
fn a_user_timeout_ends_an_orphan() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peer = Peer::connect_narrow(address);
    victim.does("accept 1");
    let timeout = scaled(Duration::from_millis(1500)).as_millis();
    victim.does(&format!("user-timeout {timeout} 0"));
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.does("fill 0");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 closed_by_kernel persist",
    ]);
    let freed = tracer.record("freed");
    assert_eq!(freed["free_rule"], "persist", "{freed}");
    assert_eq!(judge::count(address.port(), "FIN_WAIT1"), 0);
    tracer.finishes();
}

fn a_short_linger2_shortens_fin_wait2() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("linger2 20 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    report.agrees_with_the_kernel();
    let left = report.in_state("ESTABLISHED")[0]["free_in_ms"].as_u64();
    assert!(left.is_some_and(|left| left <= 20_000), "{report}");
}

/// The data comes with the SYN, and the connection is accepted before the handshake ends.
fn fast_open_leaves_what_any_connection_leaves() {
    let (mut victim, address) = fast_open_server();
    let peer = Peer::connect_with_data(address, b"hello");
    victim.does("accept 1");
    victim.does("read 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    report.agrees_with_the_kernel();
    drop(peer);
}

fn fast_open_connections_that_were_never_accepted_are_reset() {
    let (mut victim, address) = fast_open_server();
    let mut peers: Vec<_> = (0..3)
        .map(|_| Peer::connect_with_data(address, b"hello"))
        .collect();
    let all = || judge::count(address.port(), "ESTABLISHED") == 3;
    wait_until("three connections", all);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN closed listener now"]);
    assert_eq!(report.listener()["accept_queue"], 3);
    let ends: Vec<_> = peers.iter_mut().map(Peer::end).collect();
    assert_eq!(ends, [RESET, RESET, RESET]);
    assert_eq!(judge::of_port(address.port()).len(), 0);
}

/// A server that takes data with a SYN from anybody, without the cookie of an earlier connection.
#[track_caller]
fn fast_open_server() -> (Victim, std::net::SocketAddr) {
    // TFO_CLIENT_ENABLE, TFO_SERVER_ENABLE, TFO_CLIENT_NO_COOKIE and TFO_SERVER_COOKIE_NOT_REQD (include/net/tcp.h).
    sysctl("ipv4/tcp_fastopen", 0x207);
    let mut victim = Victim::start();
    let address = victim.listen("4");
    victim.does("fast-open 16");
    (victim, address)
}

/// A group of SO_REUSEPORT: each listener is an entry, with the connections that came to it.
fn two_listeners_at_one_address() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseport");
    victim.does("listen-beside");
    let mut peers: Vec<_> = (0..20).map(|_| Peer::connect(address)).collect();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["2 LISTEN closed listener now"]);
    let queues = report.in_state("LISTEN").into_iter();
    let waiting: u64 = queues
        .filter_map(|listener| listener["accept_queue"].as_u64())
        .sum();
    assert_eq!(waiting, 20, "{report}");
    for peer in &mut peers {
        assert_eq!(peer.end(), RESET);
    }
}

/// The survivor of a group has its own socket: nothing of the dead one is held.
fn a_listener_of_another_process_at_the_same_address_holds_nothing() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseport");
    let survivor = net::socket(address, 0, 0).expect("a socket");
    net::set(&survivor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1_i32).expect("any socket has the option");
    net::bind(&survivor, address).expect("both have SO_REUSEPORT, and one user");
    net::listen(&survivor, 1).expect("it is bound");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.reads(&["1 LISTEN closed listener now"]);
    assert_eq!(judge::count(address.port(), "LISTEN"), 1, "the survivor's");
    let _peer = Peer::connect(address);
    net::accept(&survivor).expect("it listens");
}
