//! Addresses and protocols, and how a socket becomes an entry.

use libtest_mimic::Trial;
use sockleak_tests::peer::Peer;
use sockleak_tests::report::{Report, address};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![a_duplicated_descriptor_is_one_entry, the_options_are_reported],
    );
    tests.extend(sandboxed(&[Need::Ipv6], named![ipv6, v4_mapped, dual_stack]));
    tests.extend(sandboxed(
        &[Need::Mptcp],
        named![
            a_plain_client_of_an_mptcp_listener,
            an_mptcp_connection_is_one_entry
        ],
    ));
    tests
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

/// A server of that family with two idle connections dies. Gives the report and the peers.
#[track_caller]
fn death_of_a_server(how: &str) -> (Report, Vec<Peer>) {
    let (mut victim, peers) = Victim::serving(how, 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    (tracer.report(), peers)
}

/// The local addresses of the sockets, each once, and the family of all.
#[track_caller]
fn addresses(report: &Report) -> (Vec<&str>, &str) {
    let mut local: Vec<_> = report
        .sockets()
        .iter()
        .flat_map(|socket| socket["laddr"].as_str())
        .collect();
    local.sort_unstable();
    local.dedup();
    let family = report.sockets()[0]["family"].as_str().expect("a family");
    assert!(
        report.sockets().iter().all(|socket| socket["family"] == family),
        "{report}"
    );
    (local, family)
}

fn ipv6() {
    let (report, peers) = death_of_a_server("6");
    report.shows(&IDLE);
    assert_eq!(addresses(&report), (vec!["::1"], "ipv6"));
    let mut remote: Vec<_> = report.in_state("ESTABLISHED");
    remote.retain(|socket| {
        peers
            .iter()
            .any(|peer| address(&socket["raddr"], &socket["rport"]) == Some(peer.address()))
    });
    assert_eq!(remote.len(), 2, "{report}");
}

fn v4_mapped() {
    let (report, _peers) = death_of_a_server("mapped");
    report.shows(&IDLE);
    assert_eq!(addresses(&report), (vec!["::ffff:127.0.0.1"], "ipv6"));
}

fn dual_stack() {
    let (report, _peers) = death_of_a_server("dual");
    report.shows(&IDLE);
    assert_eq!(addresses(&report), (vec!["::", "::ffff:127.0.0.1"], "ipv6"));
}

/// A client that does not speak MPTCP gets an ordinary TCP connection.
fn a_plain_client_of_an_mptcp_listener() {
    let (report, _peers) = death_of_a_server("4 mptcp");
    report.shows(&IDLE);
    assert_eq!(report.listener()["protocol"], "mptcp");
    let connections = report.in_state("ESTABLISHED");
    assert!(
        connections.iter().all(|socket| socket["protocol"] == "tcp"),
        "{report}"
    );
}

fn an_mptcp_connection_is_one_entry() {
    let mut victim = Victim::start();
    let address = victim.listen("4 mptcp");
    let _peer = Peer::connect_mptcp(address);
    victim.does("accept 1");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.sockets().len(), 2, "{report}");
    let connection = report.in_state("ESTABLISHED")[0];
    assert_eq!(connection["protocol"], "mptcp");
    assert_eq!(connection["why"], "closed_by_kernel", "{connection}");
}

fn a_duplicated_descriptor_is_one_entry() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    victim.does("dup 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&IDLE);
    let mut descriptors: Vec<_> = report
        .sockets()
        .iter()
        .flat_map(|socket| socket["fds"].as_array())
        .map(Vec::len)
        .collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, [1, 1, 2], "{report}");
}

/// An accepted connection inherits SO_REUSEADDR and SO_REUSEPORT, which decides about a restart.
fn the_options_are_reported() {
    for (options, reuseaddr, reuseport) in [
        ("4", false, false),
        ("4 reuseaddr", true, false),
        ("4 reuseport", false, true),
    ] {
        let (mut victim, _peers) = Victim::serving(options, 1);
        victim.does("linger 7 0");
        let mut tracer = Tracer::attach(victim.pid(), &[]);
        victim.killed_by(libc::SIGKILL);
        let report = tracer.report();
        for socket in report.sockets() {
            assert_eq!(socket["reuseaddr"], reuseaddr, "{options}: {socket}");
            assert_eq!(socket["reuseport"], reuseport, "{options}: {socket}");
        }
        assert!(report.listener()["linger"].is_null(), "{report}");
        assert!(!report.in_state("ESTABLISHED")[0]["linger"].is_null(), "{report}");
    }
}
