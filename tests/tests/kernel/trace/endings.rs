//! What leaves nothing in the kernel: one test for each row of the truth table without a leftover.

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::peer::{self, End, Peer, RESET};
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_peer_that_closed_first_gets_its_last_ack,
            unread_data_resets,
            linger_zero_resets,
            a_dying_process_does_not_linger,
            a_negative_linger2_resets,
            a_connection_that_the_peer_had_reset_is_closed,
            connections_that_were_never_accepted_are_reset_with_the_listener,
            a_connect_under_way_is_closed,
            a_bound_socket_is_closed,
            an_overflow_of_time_wait_frees_at_once,
            a_table_of_time_waits_that_runs_full,
            a_missing_time_wait_without_an_overflow,
        ],
    )
}

fn a_peer_that_closed_first_gets_its_last_ack() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let peers = victim.accept(address, 3);
    drop(peers);
    wait_until("CLOSE_WAIT", || judge::count(address.port(), "CLOSE_WAIT") == 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "3 CLOSE_WAIT closed peer_closed_first now",
    ]);
    for socket in report.in_state("CLOSE_WAIT") {
        assert_eq!(socket["unread_bytes"], 0, "a FIN is no unread data: {socket}");
    }
}

fn unread_data_resets() {
    let (mut victim, mut peers) = Victim::serving("4", 3);
    for peer in &mut peers[..2] {
        peer.send(b"twelve bytes");
    }
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED reset unread_data now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let unread = report
        .sockets()
        .iter()
        .filter(|socket| socket["unread_bytes"] == 12);
    assert_eq!(unread.count(), 2, "{report}");
    let ends: Vec<_> = peers.iter_mut().map(Peer::end).collect();
    assert_eq!(ends, [RESET, RESET, End::Closed]);
}

fn linger_zero_resets() {
    let (mut victim, mut peers) = Victim::serving("4", 2);
    victim.does("linger 0 1");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED reset linger_zero now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(peers[0].end(), End::Closed);
    assert_eq!(peers[1].end(), RESET);
}

fn a_dying_process_does_not_linger() {
    let (mut victim, mut peers) = Victim::serving("4", 1);
    victim.does("linger 30 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(peers[0].end(), End::Closed);
}

/// TCP_LINGER2 below zero: the orphan is reset as soon as it would be in FIN_WAIT2.
fn a_negative_linger2_resets() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("linger2 -1 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN closed listener now", "1 ESTABLISHED reset linger2 now"]);
}

fn a_connection_that_the_peer_had_reset_is_closed() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let peers = victim.accept(address, 1);
    peers.into_iter().for_each(Peer::reset);
    wait_until("the reset", || judge::count(address.port(), "ESTABLISHED") == 0);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer
        .report()
        .shows(&["1 LISTEN closed listener now", "1 CLOSE reset peer_reset now"]);
}

fn connections_that_were_never_accepted_are_reset_with_the_listener() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _accepted = victim.accept(address, 1);
    let mut waiting: Vec<_> = (0..4).map(|_| Peer::connect(address)).collect();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report.listener()["accept_queue"], 4);
    for peer in &mut waiting {
        assert_eq!(peer.end(), RESET);
    }
    assert_eq!(judge::of_port(address.port()).len(), 1);
}

fn a_connect_under_way_is_closed() {
    let silent = peer::silent_listener();
    let mut victim = Victim::start();
    victim.does(&format!(
        "connecting {}",
        silent.local_addr().expect("it is bound")
    ));
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&["1 SYN_SENT closed never_connected now"]);
}

fn a_bound_socket_is_closed() {
    let mut victim = Victim::start();
    victim.does("bind 4");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&["1 CLOSE closed never_connected now"]);
}

/// No mini socket was made, so the ports are free.
fn an_overflow_of_time_wait_frees_at_once() {
    kill_with_a_small_table(0, 8);
    judge::counts_timewaits(0);
}

/// The table takes some of them; the others have no TIME_WAIT. The kernel looks at its count before it counts, so that
/// one more may fit (`inet_twsk_alloc`, net/ipv4/inet_timewait_sock.c).
fn a_table_of_time_waits_that_runs_full() {
    let left = kill_with_a_small_table(10, 50);
    assert!(left >= 10, "only {left} are left");
}

/// Kills a server with so many connections where the table takes so many, and returns how many are left. A connection
/// whose peer acknowledges while close() has it stays a full socket, which no table has to take (`__tcp_close`,
/// net/ipv4/tcp.c).
#[track_caller]
fn kill_with_a_small_table(most: usize, connections: usize) -> usize {
    sysctl("ipv4/tcp_max_tw_buckets", most);
    let (mut victim, _peers) = Victim::serving("4", connections);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let overflow = judge::netstat("TCPTimeWaitOverflow") as usize;
    assert!(overflow > 0, "the table was full");
    let left = connections - overflow;
    let freed = format!("{overflow} ESTABLISHED closed time_wait_overflow now");
    let kept = format!("{left} ESTABLISHED fin_wait2 closed_by_kernel fin_timeout");
    let mut rows = vec!["1 LISTEN closed listener now", &freed];
    rows.extend((left > 0).then_some(kept.as_str()));
    report.shows(&rows);
    left
}

/// Data that arrives after the death is answered by an RST, and that is the end of the time-wait. Kernels before 6.12
/// do not tell of an RST in the name of a mini socket: what is missing has no reason then, though there was room.
fn a_missing_time_wait_without_an_overflow() {
    let (mut victim, peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &["--settle", "1s"]);
    let peers: Vec<_> = peers.into_iter().map(Peer::sends_when_closed).collect();
    victim.killed_by(libc::SIGKILL);
    for peer in peers {
        peer.join().expect("its connection ends");
    }
    let report = tracer.report();
    let connection = match &report.in_state("ESTABLISHED")[0]["why"] {
        why if why == "unknown" => "1 ESTABLISHED closed unknown now",
        _ => "1 ESTABLISHED reset data_after_close now",
    };
    report.shows(&["1 LISTEN closed listener now", connection]);
    assert_eq!(judge::netstat("TCPTimeWaitOverflow"), 0);
}
