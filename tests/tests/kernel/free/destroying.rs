//! What is destroyed, and that the port is free then.

use std::os::fd::AsFd;

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net::{self, Family};
use sockleak_tests::peer::{End, Peer};
use sockleak_tests::sandbox::{self, sysctl};
use sockleak_tests::tracer::run;
use sockleak_tests::victim::Victim;

use super::{crashed, free, is_in_use, on_port, plain_bind, rows, settles};
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::TimeWaitDestroy],
        named![
            a_port_is_free_at_once,
            many_leftovers_go_at_once,
            what_a_leftover_had_to_send_is_counted,
            a_full_fin_wait2_resets_its_peer,
            a_leftover_of_one_interface,
            the_text_says_what_it_costs,
        ],
    );
    tests.extend(sandboxed(
        &[Need::TimeWaitDestroy, Need::Ipv6],
        named![leftovers_of_ipv6],
    ));
    tests
}

fn a_port_is_free_at_once() {
    let (address, _peers) = crashed();
    let port = address.port().to_string();
    is_in_use(address);
    let before = on_port(address.port());

    // Their peers were sent the FIN only a moment ago.
    let (status, lines) = free(&[&port, "--discard-unsent"]);
    assert_eq!(status, 0, "a dry run");
    let plan = [
        "1 FIN_WAIT1 would_destroy - peer_reset",
        "1 LAST_ACK would_destroy - peer_left_waiting",
        "2 FIN_WAIT2 would_destroy - peer_reset",
        "3 TIME_WAIT would_destroy - none",
    ];
    assert_eq!(rows(&lines), plan);
    for line in &lines {
        assert_eq!(line["lost_bytes"], 0, "the FIN is no byte that is lost: {line}");
        assert_eq!(line["netns"], sandbox::inode(), "{line}");
        assert_eq!(line["lport"], address.port(), "{line}");
    }
    assert_eq!(on_port(address.port()), before, "a dry run changes nothing");
    is_in_use(address);

    let (status, lines) = free(&[&port, "--discard-unsent", "--yes"]);
    assert_eq!(status, 0);
    let done = plan.map(|row| row.replace("would_destroy", "destroyed"));
    assert_eq!(rows(&lines), done);
    assert!(on_port(address.port()).is_empty());
    let _service = plain_bind(address).expect("the port is free");
}

fn many_leftovers_go_at_once() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    // The listener's queue has room for 128.
    let _peers: Vec<_> = (0..5).map(|_| victim.accept(address, 100)).collect();
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("FIN_WAIT2", 500)]);
    let (status, lines) = free(&[&address.port().to_string(), "--yes"]);
    assert_eq!(status, 0);
    assert_eq!(rows(&lines), ["500 FIN_WAIT2 destroyed - peer_reset"]);
    judge::counts_timewaits(0);
    let _service = plain_bind(address).expect("the port is free");
}

fn what_a_leftover_had_to_send_is_counted() {
    let (mut victim, peers) = Victim::serving("4", 1);
    let address = peers[0].remote();
    peers[0].cut_off();
    let sent: u64 = victim.does("fill 0").parse().expect("a number");
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("FIN_WAIT1", 1)]);
    let (status, lines) = free(&[&address.port().to_string(), "--discard-unsent", "--yes"]);
    assert_eq!(
        (status, rows(&lines)),
        (0, vec!["1 FIN_WAIT1 destroyed - data_lost".to_owned()])
    );
    assert_eq!(lines[0]["lost_bytes"], sent);
    let _service = plain_bind(address).expect("the port is free");
}

/// Beyond 60 seconds FIN_WAIT2 is no time-wait socket, and the kernel sends an RST for it.
fn a_full_fin_wait2_resets_its_peer() {
    /// TCP_CLOSE of include/net/tcp_states.h.
    const CLOSE: u8 = 7;
    sysctl("ipv4/tcp_fin_timeout", 120);
    let (mut victim, mut peers) = Victim::serving("4", 1);
    let address = peers[0].remote();
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("FIN_WAIT2", 1)]);
    judge::counts_timewaits(0);
    assert_eq!(peers[0].end(), End::Closed);
    let (status, lines) = free(&[&address.port().to_string(), "--yes"]);
    assert_eq!(
        (status, rows(&lines)),
        (0, vec!["1 FIN_WAIT2 destroyed - peer_reset".to_owned()])
    );
    wait_until("the RST", || peers[0].state() == CLOSE);
    let _service = plain_bind(address).expect("the port is free");
}

/// The kernel finds a socket that is bound to an interface only by that interface too.
fn a_leftover_of_one_interface() {
    let address = Family::V4.address(0);
    let listener = net::socket(address, 0, 0).expect("a socket");
    net::set(&listener, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, *b"lo\0").expect("there is loopback");
    net::bind(&listener, address).expect("any port");
    net::listen(&listener, 1).expect("it is bound");
    let address = net::local_address(listener.as_fd()).expect("it is bound");
    let _peer = Peer::connect(address);
    drop(net::accept(&listener).expect("a peer"));
    drop(listener);
    settles(address.port(), &[("FIN_WAIT2", 1)]);
    let (status, lines) = free(&[&address.port().to_string(), "--yes"]);
    assert_eq!(
        (status, rows(&lines)),
        (0, vec!["1 FIN_WAIT2 destroyed - peer_reset".to_owned()])
    );
    let _service = plain_bind(address).expect("the port is free");
}

fn the_text_says_what_it_costs() {
    let (address, _peers) = crashed();
    let port = address.port().to_string();
    let dry = run(["free", &port, "--discard-unsent"]);
    let done = run(["free", &port, "--discard-unsent", "--yes"]);
    assert_eq!((dry.status, done.status), (0, 0));
    assert_eq!((dry.stderr.as_str(), done.stderr.as_str()), ("", ""));
    for (run, words) in [
        (
            &dry,
            [
                "would destroy 7 leftovers",
                "--yes",
                "TIME_WAIT",
                "LADDR",
                "RST",
                "not told",
            ],
        ),
        (
            &done,
            [
                "destroyed 7 leftovers",
                "FIN_WAIT1",
                "LAST_ACK",
                &port,
                "RST",
                "nothing is lost",
            ],
        ),
    ] {
        for word in words {
            assert!(run.stdout.contains(word), "no `{word}` in\n{}", run.stdout);
        }
        let long = run.stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "longer than 80 columns");
    }
    let nothing = run(["free", &port, "--yes"]);
    assert_eq!(
        (nothing.status, nothing.stdout),
        (0, format!("nothing is left on port {port}\n"))
    );
}

fn leftovers_of_ipv6() {
    for family in ["6", "mapped", "dual"] {
        let (mut victim, peers) = Victim::serving(family, 2);
        peers[0].cut_off();
        let port = peers[0].remote().port();
        victim.killed_by(libc::SIGKILL);
        settles(port, &[("FIN_WAIT1", 1), ("FIN_WAIT2", 1)]);
        let (status, lines) = free(&[&port.to_string(), "--discard-unsent", "--yes"]);
        let destroyed = [
            "1 FIN_WAIT1 destroyed - peer_reset",
            "1 FIN_WAIT2 destroyed - peer_reset",
        ];
        assert_eq!(rows(&lines), destroyed, "{family}");
        assert_eq!(status, 0);
        assert!(on_port(port).is_empty(), "{family}");
    }
}
