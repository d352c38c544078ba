//! Advice on real crashes: it is given where the kernel behaves as it says, and not where it does not.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use libtest_mimic::Trial;
use serde_json::json;
use sockleak_tests::judge::{self, Timer};
use sockleak_tests::limit::wait_until;
use sockleak_tests::net;
use sockleak_tests::peer::{Peer, RESET};
use sockleak_tests::report::Report;
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            an_ordinary_crash_needs_none,
            a_server_without_reuseaddr,
            a_server_that_unwinds,
            a_listener_that_a_child_has,
            a_survivor_of_a_reuseport_group,
            a_server_that_closes_first,
            an_announced_end_with_open_connections,
            data_that_nobody_read,
            a_reset_by_choice,
            a_peer_that_is_cut_off,
            a_peer_that_does_not_read,
            a_service_port_that_connect_may_take,
            the_details_are_for_the_verbose,
        ],
    )
}

/// From now on no port that a victim got is in the range that connect() chooses from.
fn leave_the_range() {
    sysctl("ipv4/ip_local_port_range", "20000 20099");
}

/// What bind() and listen() say there with that option.
fn binds(address: SocketAddr, option: Option<i32>) -> io::Result<OwnedFd> {
    let socket = net::socket(address, 0, 0)?;
    if let Some(option) = option {
        net::set(&socket, libc::SOL_SOCKET, option, 1_i32)?;
    }
    net::bind(socket.as_fd(), address)?;
    net::listen(socket.as_fd(), 128)?;
    Ok(socket)
}

#[track_caller]
fn is_refused(address: SocketAddr, option: Option<i32>) {
    let errno = binds(address, option).map_err(|error| error.raw_os_error());
    assert_eq!(errno.err(), Some(Some(libc::EADDRINUSE)));
}

fn killed(mut victim: Victim) -> Report {
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report()
}

fn an_ordinary_crash_needs_none() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let _peers = victim.accept(address, 3);
    let report = killed(victim);
    assert_eq!(report.advice(), [""; 0], "{report}");
    binds(address, Some(libc::SO_REUSEADDR)).expect("nothing is in the way");
}

/// The new socket's option does not suffice, as long as the old ones lack it.
fn a_server_without_reuseaddr() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    leave_the_range();
    let _peers = victim.accept(address, 3);
    let report = killed(victim);
    assert_eq!(
        report.advice(),
        ["leftover_without_reuseaddr", "listener_without_reuseaddr"]
    );
    let sockets = report.in_state("ESTABLISHED").into_iter();
    let last = sockets.map(|socket| socket["free_at"].as_str()).max();
    let facts = json!({"leftovers": 3, "ports": [address.port()], "free_at": last});
    assert_eq!(*report.evidence("leftover_without_reuseaddr"), facts);
    is_refused(address, Some(libc::SO_REUSEADDR));

    let mut idle = Victim::start();
    sysctl("ipv4/ip_local_port_range", "30000 30099");
    let address = idle.listen("4");
    leave_the_range();
    let report = killed(idle);
    assert_eq!(report.advice(), ["listener_without_reuseaddr"]);
    binds(address, None).expect("nothing was left");
}

/// An exception closes every socket before the process exits, so that no inventory has them.
fn a_server_that_unwinds() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    leave_the_range();
    let _peers = victim.accept(address, 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("close");
    victim.does("drop listener");
    victim.dies("exit 1");
    let report = tracer.report();
    assert_eq!(
        report.advice(),
        [
            "leftover_without_reuseaddr",
            "listener_without_reuseaddr",
            "closing_side"
        ]
    );
    is_refused(address, Some(libc::SO_REUSEADDR));
}

fn a_listener_that_a_child_has() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.advice(), ["inherited_listener"]);
    let facts = json!({"listeners": 1, "holders": 1, "ports": [address.port()]});
    assert_eq!(*report.evidence("inherited_listener"), facts);
    is_refused(address, Some(libc::SO_REUSEADDR));
}

/// A restart succeeds, and a part of the connections waits in the child's queue all the same.
fn a_survivor_of_a_reuseport_group() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseport");
    leave_the_range();
    victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.advice(), ["inherited_listener", "reuseport_survivor"]);
    let restarted = binds(address, Some(libc::SO_REUSEPORT)).expect("the option allows it");
    let restarted = TcpListener::from(restarted);
    restarted.set_nonblocking(true).expect("any socket can be");
    let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(address)).collect();
    assert!(clients.iter().all(Result::is_ok));
    let accepted: Vec<_> = std::iter::from_fn(|| restarted.accept().ok()).collect();
    assert!(
        (1..64).contains(&accepted.len()),
        "{} of 64 arrive",
        accepted.len()
    );
}

/// What the process closed while it lived is on its own port, whatever ended it.
fn a_server_that_closes_first() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let _peers = victim.accept(address, 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("drop 0");
    victim.does("shutdown 1");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.advice(), ["closing_side"]);
    assert_eq!(
        report.evidence("closing_side")["sockets"],
        2,
        "not the one of the crash"
    );
    assert_eq!(judge::count(address.port(), "FIN_WAIT2"), 3);
}

fn an_announced_end_with_open_connections() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let _peers = victim.accept(address, 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.dies("_exit 0");
    let report = tracer.report();
    assert_eq!(report.advice(), ["closing_side"]);
    assert_eq!(report.evidence("closing_side")["sockets"], 3);
}

fn data_that_nobody_read() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let mut peers = victim.accept(address, 2);
    peers[0].send(b"unread");
    wait_until("the data", || judge::netstat("TCPOrigDataSent") == 1);
    let report = killed(victim);
    assert_eq!(report.advice(), ["unread_data_reset"]);
    let facts = json!({"sockets": 1, "unread_bytes": 6});
    assert_eq!(*report.evidence("unread_data_reset"), facts);
    assert_eq!(peers[0].end(), RESET);
}

fn a_reset_by_choice() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let mut peers = victim.accept(address, 2);
    victim.does("linger 0 0");
    victim.does("linger 5 1");
    let report = killed(victim);
    assert_eq!(report.advice(), ["linger_zero"]);
    assert_eq!(report.evidence("linger_zero")["sockets"], 1);
    assert_eq!(peers[0].end(), RESET);
}

fn a_peer_that_is_cut_off() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let peers = victim.accept(address, 2);
    peers[0].cut_off();
    let report = killed(victim);
    assert_eq!(report.advice(), ["unreachable_peer"]);
    let waiting = &report.evidence("unreachable_peer")["sockets"];
    assert_eq!(
        (waiting, judge::count(address.port(), "FIN_WAIT1")),
        (&json!(1), 1)
    );
}

fn a_peer_that_does_not_read() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    leave_the_range();
    let _peer = Peer::connect_narrow(address);
    victim.does("accept 1");
    victim.does("fill 0");
    let probes = |entry: &judge::Entry| entry.timer == Timer::Persist;
    wait_until("the zero-window probe", || {
        judge::of_port(address.port()).iter().any(probes)
    });
    let report = killed(victim);
    assert_eq!(report.advice(), ["zero_window_orphan"]);
    let unsent = &report.in_state("ESTABLISHED")[0]["unacked_bytes"];
    assert_eq!(report.evidence("zero_window_orphan")["unsent_bytes"], *unsent);
}

/// Once the service is gone, an outgoing connection gets its port, and then it cannot have it back.
fn a_service_port_that_connect_may_take() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    let port = address.port();
    sysctl("ipv4/ip_local_port_range", format!("{port} {port}"));
    let report = killed(victim);
    assert_eq!(report.advice(), ["fixed_port_in_ephemeral_range"]);
    let facts = json!({"listeners": 1, "ports": [port]});
    assert_eq!(*report.evidence("fixed_port_in_ephemeral_range"), facts);
    let service = TcpListener::bind("127.0.0.1:8080").expect("a free port");
    let thief = TcpStream::connect("127.0.0.1:8080").expect("one port is left");
    assert_eq!(thief.local_addr().expect("it is connected"), address);
    is_refused(address, Some(libc::SO_REUSEADDR));
    drop((thief, service));

    sysctl("ipv4/ip_local_port_range", "30000 30099");
    let mut reserved = Victim::start();
    let port = reserved.listen("4 reuseaddr").port();
    sysctl("ipv4/ip_local_reserved_ports", port);
    let report = killed(reserved);
    assert_eq!(report.advice(), [""; 0], "{report}");
}

fn the_details_are_for_the_verbose() {
    let text = |options: &[&str]| {
        let (mut victim, _peers) = Victim::serving("4", 2);
        let mut tracer = Tracer::attach_for_text(victim.pid(), options);
        victim.killed_by(libc::SIGKILL);
        assert_eq!(tracer.status(), 0);
        tracer.stdout()
    };
    let (short, long) = (text(&[]), text(&["-v"]));
    for words in ["advice: wait this once", "advice: set SO_REUSEADDR"] {
        assert!(short.contains(words) && long.contains(words), "{short}{long}");
    }
    for words in ["Python: ", "costs: ", "does not help: "] {
        assert!(!short.contains(words) && long.contains(words), "{short}{long}");
    }
    assert!(long.lines().all(|line| line.chars().count() <= 80), "{long}");
}
