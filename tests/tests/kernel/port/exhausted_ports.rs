//! Ports that are used up towards one destination, by a crash or by the work before it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::json;
use sockleak_tests::judge;
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::net;
use sockleak_tests::report::number;
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::service;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::SomeDescriptors],
        named![twenty_thousand_ports_of_two_processes],
    );
    tests.extend(sandboxed(
        &[],
        named![
            a_destination_without_ports,
            what_is_said_to_be_refused_is_refused,
            many_short_connections,
        ],
    ));
    tests
}

/// As many as two processes may open, all towards one destination. Nobody accepts them: a descriptor for each would be
/// too many. An emulated machine has a tenth of them.
fn twenty_thousand_ports_of_two_processes() {
    let is_slow = scaled(Duration::from_secs(1)) > Duration::from_secs(1);
    let each: u16 = if is_slow { 1_000 } else { 10_000 };
    let all = 40_000..40_000 + 2 * each;
    sysctl("ipv4/tcp_tw_reuse", 0);
    sysctl("core/somaxconn", 65_535);
    let address = SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), service::PORT);
    let listener = net::socket(address, 0, 0).expect("a socket");
    net::bind(&listener, address).expect("a free port");
    net::listen(&listener, 65_535).expect("it is bound");

    let mut victims = [Victim::start(), Victim::start()];
    // connect() searches for long where few ports of many are left, so they are taken in small ranges.
    let mut starts = all.clone().step_by(1_000);
    for victim in &mut victims {
        for start in starts.by_ref().take(usize::from(each / 1_000)) {
            sysctl("ipv4/ip_local_port_range", format!("{start} {}", start + 999));
            victim.does(&format!("outgoing 1000 {address}"));
        }
    }
    sysctl(
        "ipv4/ip_local_port_range",
        format!("{} {}", all.start, all.end - 1),
    );
    let mut tracer = Tracer::attach_all(victims.iter().map(Victim::pid), &[]);
    for victim in &mut victims {
        victim.killed_by(libc::SIGKILL);
    }
    let refused = net::socket(address, 0, 0).and_then(|socket| net::connect(&socket, address));
    let errno = refused.expect_err("no port is left").raw_os_error();
    assert_eq!(errno, Some(libc::EADDRNOTAVAIL));
    // Events may be lost in a crash of so many: what sock_diag counts does not depend on them.
    for _ in 0..2 {
        let report = tracer.record("report");
        let [row] = report["ephemeral"].as_array().expect("a list").as_slice() else {
            panic!("not one destination: {}", report["ephemeral"]);
        };
        assert_eq!(number(row, "in_use"), u64::from(each), "{row}");
        assert_eq!(number(row, "range_total"), u64::from(each) * 2, "{row}");
        assert_eq!(
            (number(row, "available"), &row["connect_fails"]),
            (0, &true.into()),
            "{row}"
        );
    }
}

/// A victim that has opened so many connections, towards a service outside of the range.
fn client(count: usize) -> (Victim, TcpListener, Vec<TcpStream>) {
    let service = TcpListener::bind("127.0.0.1:8080").expect("a free port");
    let mut victim = Victim::start();
    victim.does(&format!("outgoing {count} 127.0.0.1:8080"));
    let accept = |_| service.accept().expect("the victim has connected").0;
    let ends = (0..count).map(accept).collect();
    (victim, service, ends)
}

fn a_destination_without_ports() {
    // 5.10 takes over a FIN_WAIT2 as it does a TIME_WAIT.
    sysctl("ipv4/tcp_tw_reuse", 0);
    sysctl("ipv4/ip_local_port_range", "40000 40099");
    let (mut victim, _service, _ends) = client(100);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.advice(), ["ephemeral_exhaustion"]);
    let facts = report.evidence("ephemeral_exhaustion");
    assert_eq!(
        (&facts["destinations"], &facts["leftovers"]),
        (&json!(1), &json!(100)),
        "{facts}"
    );
    assert_eq!(facts["available_ports"], 0, "{facts}");
    let refused = TcpStream::connect("127.0.0.1:8080").expect_err("no port is left");
    assert_eq!(refused.raw_os_error(), Some(libc::EADDRNOTAVAIL));
}

/// With tcp_tw_reuse an older kernel takes over a FIN_WAIT2 that is two seconds old; whether this one does is either known
/// or not said.
fn what_is_said_to_be_refused_is_refused() {
    sysctl("ipv4/tcp_tw_reuse", 2);
    sysctl("ipv4/ip_local_port_range", "40000 40099");
    let (mut victim, _service, _ends) = client(100);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let died = Instant::now();
    let report = tracer.report();
    let row = report.destination();
    assert_eq!(
        (number(row, "in_use"), number(row, "available")),
        (100, 0),
        "{row}"
    );
    wait_until("they are old", || died.elapsed() > Duration::from_secs(2));
    match row["connect_fails"].as_bool() {
        None => {}
        Some(told) => assert_eq!(TcpStream::connect("127.0.0.1:8080").is_err(), told, "{row}"),
    }
}

fn many_short_connections() {
    let (mut victim, _service, ends) = client(100);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("close");
    drop(ends);
    let is_time_wait = |entry: &judge::Entry| entry.state == "TIME_WAIT";
    wait_until("every TIME_WAIT", || {
        judge::sockets()
            .iter()
            .filter(|entry| is_time_wait(entry))
            .count()
            == 100
    });
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.advice(), ["time_wait_churn"]);
    assert_eq!(report.evidence("time_wait_churn")["sockets"], 100);
}
