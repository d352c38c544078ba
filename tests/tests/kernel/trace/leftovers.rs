//! What stays in the kernel: one test for each row of the truth table with a leftover.

use std::net::TcpListener;

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge::{self, Timer, counts_timewaits};
use sockleak_tests::limit::wait_until;
use sockleak_tests::peer::{End, Peer};
use sockleak_tests::report::{Report, moment};
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            an_idle_peer_leaves_fin_wait2,
            a_peer_that_closes_then_leaves_time_wait,
            a_connection_to_itself_leaves_time_wait,
            an_outgoing_connection_leaves_fin_wait2,
            a_shutdown_before_leaves_fin_wait2,
            a_fin_timeout_above_a_minute_leaves_a_full_fin_wait2,
            an_unreachable_peer_leaves_fin_wait1,
            an_unreachable_peer_that_closed_first_leaves_last_ack,
            unsent_data_before_a_closed_window_leaves_fin_wait1,
            what_the_process_closed_itself_is_left_while_alive,
        ],
    )
}

/// Seconds from its last change until the kernel is expected to free the first socket in that state.
fn lifetime(report: &Report, state_at_death: &str) -> i64 {
    let socket = report.in_state(state_at_death)[0];
    let changes = socket["transitions"].as_array().expect("a list");
    let last = moment(&changes.last().expect("it was closed")["time"]);
    moment(&socket["free_at"]).duration_since(last).as_secs()
}

fn an_idle_peer_leaves_fin_wait2() {
    let (mut victim, mut peers) = Victim::serving("4", 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "3 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert!((57..=60).contains(&lifetime(&report, "ESTABLISHED")), "{report}");
    counts_timewaits(3);
    for peer in &mut peers {
        assert_eq!(peer.end(), End::Closed);
    }
}

fn a_peer_that_closes_then_leaves_time_wait() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let peers = victim.accept(address, 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let peers: Vec<_> = peers.into_iter().map(Peer::closes_when_closed).collect();
    // The report does not wait for a peer that is late on a busy machine.
    tracer.stops();
    victim.killed_by(libc::SIGKILL);
    for peer in peers {
        peer.join().expect("it has closed");
    }
    wait_until("TIME_WAIT", || judge::count(address.port(), "TIME_WAIT") == 3);
    tracer.signal(libc::SIGCONT);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "3 ESTABLISHED time_wait closed_by_kernel timewait_timer",
    ]);
    assert!((57..=60).contains(&lifetime(&report, "ESTABLISHED")), "{report}");
}

/// The end that the kernel closes first has the TIME_WAIT, and the other one finds itself in CLOSE_WAIT by then. On a
/// busy machine each may send its FIN before it reads the other's, and both have one: the kernel's table tells.
fn a_connection_to_itself_leaves_time_wait() {
    let mut victim = Victim::start();
    victim.listen("4");
    victim.does("connect self");
    victim.does("accept 1");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let port = |end: &Value| end["lport"].as_u64().and_then(|port| port.try_into().ok());
    let timewaits = |end: &Value| judge::count(port(end).expect("a port"), "TIME_WAIT");
    let ends = report.in_state("ESTABLISHED");
    let both = ends.into_iter().all(|end| timewaits(end) == 1);
    let rows: &[&str] = if both {
        &["2 ESTABLISHED time_wait closed_by_kernel timewait_timer"]
    } else {
        &[
            "1 ESTABLISHED time_wait closed_by_kernel timewait_timer",
            "1 ESTABLISHED closed peer_closed_first now",
        ]
    };
    report.shows(&[&["1 LISTEN closed listener now"], rows].concat());
}

fn an_outgoing_connection_leaves_fin_wait2() {
    let server = TcpListener::bind("127.0.0.1:0").expect("an address of the sandbox");
    let address = server.local_addr().expect("it is bound");
    let mut victim = Victim::start();
    for _ in 0..2 {
        victim.does(&format!("connect {address}"));
    }
    let _ends: Vec<_> = (0..2)
        .map(|_| server.accept().expect("the victim has connected"))
        .collect();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout"]);
    assert!(
        report
            .sockets()
            .iter()
            .all(|socket| socket["rport"] == address.port()),
        "{report}"
    );
}

fn a_shutdown_before_leaves_fin_wait2() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("shutdown 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 FIN_WAIT2 fin_wait2 shutdown_before fin_timeout",
    ]);
    assert_eq!(report.in_state("FIN_WAIT2")[0]["shutdown"], true);
}

/// Beyond 60 seconds the kernel keeps the whole socket for a while and then a time-wait socket.
fn a_fin_timeout_above_a_minute_leaves_a_full_fin_wait2() {
    sysctl("ipv4/tcp_fin_timeout", 120);
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    counts_timewaits(0);
    // It is a full socket for a minute and a mini socket for another; the second one is not told in advance.
    let socket = report.in_state("ESTABLISHED")[0];
    let free_at = |key: &str| {
        socket[key]
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok())
    };
    let death = report["death"]["time"]
        .as_str()
        .and_then(|time| time.parse::<Timestamp>().ok());
    let real = death.map(|death| death + SignedDuration::from_secs(120));
    assert!(
        free_at("free_at") <= real && real <= free_at("free_at_latest"),
        "{report}"
    );
}

/// The kernel gives up after eight retransmissions, which took 107.9 seconds when it was measured.
fn an_unreachable_peer_leaves_fin_wait1() {
    let (mut victim, peers) = Victim::serving("4", 2);
    peers[0].cut_off();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 peer_unreachable retransmits",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert!((90..=130).contains(&lifetime(&report, "ESTABLISHED")), "{report}");
}

fn an_unreachable_peer_that_closed_first_leaves_last_ack() {
    let (mut victim, peers) = Victim::serving("4", 1);
    peers[0].shut_down();
    peers[0].cut_off();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 CLOSE_WAIT last_ack peer_unreachable retransmits",
    ]);
}

fn unsent_data_before_a_closed_window_leaves_fin_wait1() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peer = Peer::connect_narrow(address);
    victim.does("accept 1");
    victim.does("fill 0");
    let probes = |entry: &judge::Entry| entry.timer == Timer::Persist;
    wait_until("the zero-window probe", || {
        judge::of_port(address.port()).iter().any(probes)
    });
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait1 closed_by_kernel persist",
    ]);
    let socket = report.in_state("ESTABLISHED")[0];
    assert!(
        socket["unacked_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{socket}"
    );
    // Eight probes without an answer take two minutes or more, and as many as are answered some six.
    let (at, latest) = (moment(&socket["free_at"]), moment(&socket["free_at_latest"]));
    let told = moment(&report["time"]);
    assert!(at > told + SignedDuration::from_secs(90), "{socket}");
    assert!(latest > told + SignedDuration::from_secs(300), "{socket}");
    assert_eq!(socket["earlier_by"], "ack", "{socket}");
}

fn what_the_process_closed_itself_is_left_while_alive() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peers = victim.accept(address, 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("close");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN closed listener now"]);
    assert_eq!(
        report.left_while_alive(),
        [format!("3 fin_wait2 from {}", address.port())]
    );
    assert_eq!(judge::count(address.port(), "FIN_WAIT2"), 3);
}
