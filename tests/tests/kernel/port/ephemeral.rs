//! The ports that leftovers keep from new connections: what the report counts is what connect() then finds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::report::{a_second, moment, number};
use sockleak_tests::sandbox::{own_address, sysctl};
use sockleak_tests::service::{self, Service};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            without_tw_reuse_on_loopback,
            without_tw_reuse_elsewhere,
            with_tw_reuse_on_loopback,
            with_tw_reuse_elsewhere,
            with_tw_reuse_for_loopback_only_on_loopback,
            with_tw_reuse_for_loopback_only_elsewhere,
            without_timestamps_nothing_is_taken_over,
            an_exhausted_range_refuses_connect,
            accepted_connections_are_no_outgoing_ones,
            what_the_living_process_closed_counts,
        ],
    );
    tests.extend(sandboxed(
        &[Need::Ipv6],
        named![towards_ipv6, mapped_connections_share_the_ports_of_ipv4],
    ));
    tests
}

/// Of the hundred in the range, eleven are reserved and one has a listener.
const USABLE: u64 = 88;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 7);

fn small_range() -> TcpListener {
    sysctl("ipv4/ip_local_port_range", "40000 40099");
    sysctl("ipv4/ip_local_reserved_ports", "40010-40019,40050,50000");
    TcpListener::bind("127.0.0.1:40060").expect("a port of the range may be asked for")
}

/// The kernel's TIME_WAITs towards the service.
fn time_waits() -> usize {
    let is_one = |entry: &&judge::Entry| entry.remote.port() == service::PORT && entry.state == "TIME_WAIT";
    judge::sockets().iter().filter(is_one).count()
}

/// Kills a victim that has forty connections, beside five of somebody else to the same destination and three to
/// another one. Then connects for as long as the kernel allows it.
#[track_caller]
fn forty_time_waits(ip: IpAddr, tw_reuse: u32, reusable: u64) {
    sysctl("ipv4/tcp_tw_reuse", tw_reuse);
    let _bound = small_range();
    let mut service = Service::at(ip);
    let other = TcpListener::bind((ip, service::PORT + 1)).expect("a free port");
    let _others: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(other.local_addr().expect("bound")))
        .collect();
    let _rivals: Vec<_> = (0..5)
        .map(|_| service.connect().expect("ports are left"))
        .collect();
    let kept = std::mem::take(&mut service.accepted);

    let mut victim = Victim::start();
    victim.does(&format!("outgoing 40 {}", service.address()));
    service.accept(40);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let closing = service.closes_when_closed();
    // The report waits for the other ends, which may be late on a busy machine.
    tracer.signal(libc::SIGSTOP);
    victim.killed_by(libc::SIGKILL);
    closing.join().expect("every client has closed");
    wait_until("every TIME_WAIT", || time_waits() == 40);
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    report.shows(&["40 ESTABLISHED time_wait closed_by_kernel timewait_timer"]);

    let row = report.destination();
    assert_eq!(
        (&row["raddr"], &row["rport"]),
        (&ip.to_string().into(), &service::PORT.into()),
        "{row}"
    );
    assert_eq!(row["laddr"], ip.to_string(), "{row}");
    assert_eq!(
        (number(row, "range_total"), number(row, "reserved")),
        (100, 11),
        "{row}"
    );
    assert_eq!((number(row, "in_use"), number(row, "held")), (40, 0), "{row}");
    assert_eq!(number(row, "available"), USABLE - 40 - 5, "{row}");
    assert_eq!(number(row, "reusable"), reusable, "{row}");
    assert_eq!(row["connect_fails"], false, "{row}");
    let sockets = report.sockets().iter();
    let last = sockets.map(|socket| moment(&socket["free_at"])).max();
    assert_eq!(Some(moment(&row["free_at"])), last, "{row}");
    assert_eq!(number(&row["returns"][0], "count"), 40, "{row}");

    if reusable > 0 {
        let from = moment(&row["reusable_at"]);
        wait_until("the age of a TIME_WAIT that is taken over", || {
            Timestamp::now() > from
        });
    } else {
        assert!(row["reusable_at"].is_null(), "{row}");
    }
    let made = service.connections_until_refused();
    assert_eq!(made, number(row, "available") + number(row, "reusable"), "{row}");
    drop(kept);
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn elsewhere() -> IpAddr {
    own_address(ELSEWHERE);
    ELSEWHERE.into()
}

fn without_tw_reuse_on_loopback() {
    forty_time_waits(LOOPBACK, 0, 0);
}

fn without_tw_reuse_elsewhere() {
    forty_time_waits(elsewhere(), 0, 0);
}

fn with_tw_reuse_on_loopback() {
    forty_time_waits(LOOPBACK, 1, 40);
}

fn with_tw_reuse_elsewhere() {
    forty_time_waits(elsewhere(), 1, 40);
}

fn with_tw_reuse_for_loopback_only_on_loopback() {
    forty_time_waits(LOOPBACK, 2, 40);
}

fn with_tw_reuse_for_loopback_only_elsewhere() {
    forty_time_waits(elsewhere(), 2, 0);
}

fn without_timestamps_nothing_is_taken_over() {
    sysctl("ipv4/tcp_timestamps", 0);
    forty_time_waits(LOOPBACK, 1, 0);
}

fn towards_ipv6() {
    forty_time_waits(Ipv6Addr::LOCALHOST.into(), 0, 0);
}

/// The peers stay, so every port is in FIN_WAIT2, of which none is taken over.
fn an_exhausted_range_refuses_connect() {
    sysctl("ipv4/tcp_tw_reuse", 0);
    let _bound = small_range();
    let mut service = Service::at(LOOPBACK);
    let mut victim = Victim::start();
    victim.does(&format!("outgoing {USABLE} {}", service.address()));
    service.accept(88);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let row = report.destination();
    assert_eq!(
        (number(row, "in_use"), number(row, "available")),
        (USABLE, 0),
        "{row}"
    );
    assert_eq!(row["connect_fails"], true, "{row}");
    let sockets = report.sockets().iter();
    let first = sockets.map(|socket| moment(&socket["free_at"])).min();
    let told = moment(&row["connect_fails_until"]);
    let off = told.duration_since(first.expect("88 of them")).abs();
    assert!(off <= a_second(), "{report}");
    assert_eq!(service.connections_until_refused(), 0, "{row}");
}

/// A server's connections are on its own port, even where that is in the range and the server gave the listener away.
fn accepted_connections_are_no_outgoing_ones() {
    sysctl("ipv4/ip_local_port_range", "40000 40099");
    let (mut victim, _peers) = Victim::serving("4", 5);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.in_state("ESTABLISHED").len(), 5, "{report}");
    assert_eq!(report["ephemeral"], Value::Array(Vec::new()), "{report}");

    let (mut worker, _peers) = Victim::serving("4", 5);
    let mut tracer = Tracer::attach(worker.pid(), &[]);
    worker.does("drop listener");
    worker.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report["ephemeral"], Value::Array(Vec::new()), "{report}");
}

fn what_the_living_process_closed_counts() {
    sysctl("ipv4/tcp_tw_reuse", 0);
    let _bound = small_range();
    let mut service = Service::at(LOOPBACK);
    let mut victim = Victim::start();
    victim.does(&format!("outgoing 10 {}", service.address()));
    service.accept(10);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let closing = service.closes_when_closed();
    victim.does("close");
    closing.join().expect("every client has closed");
    wait_until("every TIME_WAIT", || time_waits() == 10);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let row = report.destination();
    assert_eq!(
        (number(row, "in_use"), number(row, "available")),
        (10, USABLE - 10),
        "{row}"
    );
    assert_eq!(service.connections_until_refused(), USABLE - 10, "{row}");
}

/// To the kernel, a v4-mapped address is the IPv4 address: who uses the one takes ports from the other.
fn mapped_connections_share_the_ports_of_ipv4() {
    sysctl("ipv4/tcp_tw_reuse", 0);
    let _bound = small_range();
    let mut service = Service::at(LOOPBACK);
    let _rivals: Vec<_> = (0..5)
        .map(|_| service.connect().expect("ports are left"))
        .collect();
    let mut victim = Victim::start();
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), service::PORT);
    victim.does(&format!("outgoing 20 {mapped}"));
    service.accept(20);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let row = report.destination();
    assert_eq!(row["family"], "ipv4", "{row}");
    assert_eq!(
        (number(row, "in_use"), number(row, "available")),
        (20, USABLE - 25),
        "{row}"
    );
    assert_eq!(service.connections_until_refused(), USABLE - 25, "{row}");
}
