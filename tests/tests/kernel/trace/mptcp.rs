//! MPTCP: one entry, and under it the TCP sockets that carry it, with states and cookies of their own.

use std::net::{Ipv4Addr, SocketAddr};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::limit::wait_until;
use sockleak_tests::mptcp::{self, Row};
use sockleak_tests::peer::{Peer, RESET};
use sockleak_tests::report::{Report, address};
use sockleak_tests::sandbox;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::Mptcp],
        named![
            an_idle_peer_keeps_an_established_orphan,
            a_peer_that_closes_ends_the_subflow,
            unread_data_resets_the_subflow,
            two_subflows,
            two_subflows_of_a_peer_that_closes,
            a_listener_with_both_kinds_of_clients,
            an_inherited_listener,
            an_inherited_connection,
            the_process_itself_is_counted_by_its_descriptors,
            the_subflow_is_followed_until_it_is_free,
            the_text_has_a_row_for_the_connection,
        ],
    )
}

/// A victim that listens for MPTCP and has accepted one connection, and the other end.
#[track_caller]
fn serving() -> (Victim, SocketAddr, Peer) {
    let mut victim = Victim::start();
    let address = victim.listen("4 mptcp");
    let peer = Peer::connect_mptcp(address);
    victim.does("accept 1");
    (victim, address, peer)
}

/// Like `serving`, with a second subflow of the same connection.
#[track_caller]
fn serving_twice() -> (Victim, SocketAddr, Peer) {
    mptcp::add_subflows_from(Ipv4Addr::new(127, 0, 0, 2));
    let (mut victim, address, mut peer) = serving();
    // The client joins once the server has acknowledged data.
    peer.send(b"x");
    victim.does("read 0");
    wait_until("a second subflow", || connections(address).len() == 2);
    (victim, address, peer)
}

/// The TCP connections of the victim's port, by the kernel.
fn connections(address: SocketAddr) -> Vec<Row> {
    let mut rows = mptcp::sockets(libc::IPPROTO_TCP, address.port());
    rows.retain(|row| row.state != "LISTEN");
    rows
}

#[track_caller]
fn subflows(socket: &Value) -> &[Value] {
    assert_eq!(socket["protocol"], "mptcp", "{socket}");
    socket["subflows"].as_array().expect("a list")
}

/// The entry of the connection, which must be the only one beside the listener.
#[track_caller]
fn connection(report: &Report) -> &Value {
    assert_eq!(report.sockets().len(), 2, "{report}");
    let connections = report.sockets().iter();
    let mut connections = connections.filter(|socket| socket["state_at_death"] != "LISTEN");
    connections.next().expect("a connection")
}

/// Holds every subflow against the kernel's list of TCP sockets, and what is there of its MPTCP socket against
/// the list of those.
#[track_caller]
fn agrees_with_the_kernel(report: &Report) {
    for socket in report
        .sockets()
        .iter()
        .filter(|socket| socket["protocol"] == "mptcp")
    {
        let port = address(&socket["laddr"], &socket["lport"])
            .expect("an address")
            .port();
        let tcp = mptcp::sockets(libc::IPPROTO_TCP, port);
        for subflow in subflows(socket) {
            let local = address(&subflow["laddr"], &subflow["lport"]).expect("an address");
            let remote = address(&subflow["raddr"], &subflow["rport"]);
            let row = tcp.iter().find(|row| {
                row.local == local && remote.map_or(row.state == "LISTEN", |remote| row.remote == remote)
            });
            assert_eq!(subflow["state"].as_str(), row.map(|row| row.state), "{subflow}");
            if let Some(row) = row {
                assert_eq!(subflow["cookie"], row.cookie, "{subflow} but {row:?}");
                assert_ne!(subflow["cookie"], socket["cookie"], "{socket}");
                // A stale inode of the MPTCP socket may be left, but none of a file.
                let is_its_own = row.inode != 0 && socket["inode"] != row.inode;
                assert!(!is_its_own, "{socket} but {row:?}");
            }
        }
        let own = mptcp::sockets(libc::IPPROTO_MPTCP, port);
        if let Some(row) = own.iter().find(|row| socket["cookie"] == row.cookie) {
            assert_eq!(socket["state"], row.state, "{socket} but {row:?}");
        }
    }
}

/// After both sides have closed, each subflow leaves a TIME_WAIT on the side whose FIN came first: the entry has the
/// one that is left here, if any is.
#[track_caller]
fn left_what_lives_longest(report: &Report, count: usize) {
    let entry = connection(report);
    let subflows = subflows(entry);
    assert_eq!(subflows.len(), count, "{report}");
    let longest = match subflows.iter().find(|subflow| subflow["outcome"] == "time_wait") {
        Some(_) => json!(["time_wait", "TIME_WAIT", "timewait_timer"]),
        None => json!(["closed", null, "now"]),
    };
    assert_eq!(
        json!([entry["outcome"], entry["state"], entry["free_rule"]]),
        longest
    );
    for subflow in subflows {
        assert_eq!(subflow["transitions"][0]["from"], "ESTABLISHED", "{report}");
    }
    assert_eq!(report["left_while_alive"], json!([]), "{report}");
}

/// MPTCP waits for the peer's DATA_FIN: until then its TCP socket is ESTABLISHED and nobody has a file of it.
fn an_idle_peer_keeps_an_established_orphan() {
    let (mut victim, address, _peer) = serving();
    let before = connections(address).remove(0);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel mptcp_timeout",
    ]);
    agrees_with_the_kernel(&report);
    let [subflow] = subflows(connection(&report)) else {
        panic!("one subflow: {report}")
    };
    assert_eq!(subflow["state"], "ESTABLISHED", "{report}");
    assert_eq!(subflow["outcome"], "fin_wait2", "{report}");
    assert_eq!(subflow["cookie"], before.cookie, "{report}");
    assert_eq!(connection(&report)["state"], "FIN_WAIT2", "{report}");
}

fn a_peer_that_closes_ends_the_subflow() {
    let (mut victim, _address, peer) = serving();
    let closing = peer.closes_when_closed();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    tracer.stops();
    victim.killed_by(libc::SIGKILL);
    closing.join().expect("it closes");
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    agrees_with_the_kernel(&report);
    left_what_lives_longest(&report, 1);
}

fn unread_data_resets_the_subflow() {
    let (mut victim, _address, mut peer) = serving();
    peer.send(b"x");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED reset unread_data now",
    ]);
    agrees_with_the_kernel(&report);
    assert_eq!(subflows(connection(&report))[0]["outcome"], "reset", "{report}");
    assert_eq!(peer.end(), RESET);
}

fn two_subflows() {
    let (mut victim, address, _peer) = serving_twice();
    let before = connections(address);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel mptcp_timeout",
    ]);
    agrees_with_the_kernel(&report);
    let cookies = |rows: Vec<u64>| {
        let mut rows = rows;
        rows.sort_unstable();
        rows
    };
    let told = subflows(connection(&report)).iter();
    assert_eq!(
        cookies(told.flat_map(|subflow| subflow["cookie"].as_u64()).collect()),
        cookies(before.iter().map(|row| row.cookie).collect()),
        "{report}"
    );
}

fn two_subflows_of_a_peer_that_closes() {
    let (mut victim, _address, peer) = serving_twice();
    let closing = peer.closes_when_closed();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    tracer.stops();
    victim.killed_by(libc::SIGKILL);
    closing.join().expect("it closes");
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    agrees_with_the_kernel(&report);
    left_what_lives_longest(&report, 2);
}

/// A client without MPTCP gets a TCP socket, which has no subflows.
fn a_listener_with_both_kinds_of_clients() {
    let (mut victim, address, _speaks) = serving();
    let _plain = victim.accept(address, 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        "1 ESTABLISHED fin_wait2 closed_by_kernel mptcp_timeout",
    ]);
    agrees_with_the_kernel(&report);
    for socket in report.in_state("ESTABLISHED") {
        match socket["protocol"].as_str() {
            Some("tcp") => assert!(socket["subflows"].is_null(), "{socket}"),
            _ => assert_eq!(subflows(socket).len(), 1, "{socket}"),
        }
    }
    let [subflow] = subflows(report.listener()) else {
        panic!("one subflow: {report}")
    };
    assert_eq!(subflow["state_at_death"], "LISTEN", "{report}");
    assert_eq!(subflow["outcome"], "closed", "{report}");
}

fn an_inherited_listener() {
    let mut victim = Victim::start();
    let address = victim.listen("4 mptcp");
    victim.forks("fork");
    let _peer = Peer::connect_mptcp(address);
    victim.does("accept 1");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "1 ESTABLISHED fin_wait2 closed_by_kernel mptcp_timeout",
    ]);
    let told = |subflow: &Value| json!([subflow["state"], subflow["outcome"], subflow["free_rule"]]);
    let [subflow] = subflows(report.listener()) else {
        panic!("one subflow: {report}")
    };
    assert_eq!(told(subflow), json!(["LISTEN", "held", "holder"]), "{report}");
}

fn an_inherited_connection() {
    let (mut victim, _address, _peer) = serving();
    victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "1 ESTABLISHED held inherited holder",
    ]);
    agrees_with_the_kernel(&report);
    let [subflow] = subflows(connection(&report)) else {
        panic!("one subflow: {report}")
    };
    assert_eq!(subflow["outcome"], "held", "{report}");
    assert_eq!(subflow["state"], "ESTABLISHED", "{report}");
}

/// sock_diag shows each subflow with the inode of its MPTCP socket.
fn the_process_itself_is_counted_by_its_descriptors() {
    let (victim, _address, _peer) = serving_twice();
    let mut tracer = Tracer::start(["--pid", &victim.pid().to_string()]);
    let watch = tracer.watches();
    assert_eq!(json!([watch["listeners"], watch["connections"]]), json!([1, 1]));
}

/// The peer closes after the report: the subflow goes the ways of TCP then, here without a TIME_WAIT.
fn the_subflow_is_followed_until_it_is_free() {
    sandbox::sysctl("ipv4/tcp_max_tw_buckets", 0);
    let (mut victim, address, peer) = serving();
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    agrees_with_the_kernel(&report);
    assert_eq!(connections(address).len(), 1, "{report}");
    let port = peer.address().port();
    drop(peer);
    let freed = tracer.record("freed");
    assert_eq!(freed["rport"], port, "{freed}");
    assert_eq!(connections(address).len(), 0, "{freed}");
    tracer.finishes();
}

fn the_text_has_a_row_for_the_connection() {
    let (mut victim, address, _peer) = serving_twice();
    let mut tracer = Tracer::attach_for_text(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.status(), 0);
    let text = tracer.stdout();
    let rows = text
        .lines()
        .filter(|line| line.contains(&format!(" {} ", address.port())));
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows.len(), 2, "the listener and the connection: {text}");
    assert!(
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .contains("MPTCP with 2 subflows"),
        "{text}"
    );
    assert!(text.contains("2 sockets open when it died"), "{text}");
}
