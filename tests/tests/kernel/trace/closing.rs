//! Sockets that a living process closes: by itself, or by becoming another program.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge::{self, Entry};
use sockleak_tests::limit::wait_until;
use sockleak_tests::peer::{Peer, RESET};
use sockleak_tests::report::{a_second, moment};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            an_exec_closes_the_sockets_of_the_program_before,
            an_exec_lingers,
            an_exec_that_passes_the_listener_on_names_the_new_program,
            three_hundred_closes_are_summed_up,
            three_hundred_closes_in_text,
            a_reset_is_not_taken_for_the_peers_sockets_close,
            a_shutdown_leaves_time_wait_beside_the_open_socket,
            a_duration_ends_with_what_was_left,
        ],
    )
}

/// What the process did to its sockets before the last record that was waited for: `comm from to`.
fn transitions(tracer: &Tracer, pid: u32) -> Vec<String> {
    in_rows(tracer.passed("transition"), pid)
}

fn in_rows<'a>(transitions: impl Iterator<Item = &'a Value>, pid: u32) -> Vec<String> {
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let row = |line: &Value| {
        assert_eq!(line["pid"], pid, "{line}");
        ["comm", "from", "to"].map(|key| word(&line[key])).join(" ")
    };
    let mut rows: Vec<_> = transitions.map(row).collect();
    rows.sort_unstable();
    rows
}

fn name_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).expect("it lives");
    name.trim().to_owned()
}

/// The closes come after the exec and under the new name, but the sockets were the old program's.
fn an_exec_closes_the_sockets_of_the_program_before() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peers = victim.accept(address, 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("exec");
    let new = name_of(victim.pid());
    assert_ne!(new, "victim");
    wait_until("both FINs", || judge::count(address.port(), "FIN_WAIT2") == 2);
    let closes: Vec<Value> = (0..3).map(|_| tracer.record("transition")).collect();
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[]);
    assert_eq!(report["process"]["comm"], new);
    assert_eq!(
        in_rows(closes.iter(), victim.pid()),
        [
            "victim ESTABLISHED FIN_WAIT1",
            "victim ESTABLISHED FIN_WAIT1",
            "victim LISTEN CLOSE"
        ]
    );
    assert_eq!(
        report.left_while_alive(),
        [format!("2 fin_wait2 from {}", address.port())]
    );
}

/// A dying process never lingers, but one that becomes another program does.
fn an_exec_lingers() {
    let (mut victim, peers) = Victim::serving("4", 1);
    peers[0].cut_off();
    victim.does("linger 1 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.tell("exec");
    let closing = tracer.record("transition");
    assert_eq!(
        (&closing["comm"], &closing["to"]),
        (&"victim".into(), &"FIN_WAIT1".into()),
        "{closing}"
    );
    victim.answer();
    let lingered = Timestamp::now().duration_since(moment(&closing["time"]));
    assert!(lingered >= SignedDuration::from_millis(990), "{lingered:#}");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let local = closing["lport"].as_u64().expect("a port");
    assert_eq!(
        report.left_while_alive(),
        [format!("1 fin_wait1 from {local}")],
        "{report}"
    );
}

/// Whose a socket is that closes then cannot be told: the new program may have accepted it.
fn an_exec_that_passes_the_listener_on_names_the_new_program() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("keep-on-exec");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("exec");
    assert_eq!(judge::socket_inodes(victim.pid()).len(), 2);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(transitions(&tracer, victim.pid()), [""; 0]);
}

/// A client that has closed three hundred connections, each of which is a TIME_WAIT.
#[track_caller]
fn pile(start: impl FnOnce(u32) -> Tracer) -> (Victim, Tracer, SocketAddr) {
    let service = TcpListener::bind("127.0.0.1:0").expect("an address of the sandbox");
    let address = service.local_addr().expect("it is bound");
    let mut victim = Victim::start();
    let ends: Vec<TcpStream> = (0..300)
        .map(|_| {
            victim.does(&format!("connect {address}"));
            service.accept().expect("the victim has connected").0
        })
        .collect();
    let tracer = start(victim.pid());
    victim.does("close");
    drop(ends);
    wait_until("every TIME_WAIT", || time_waits(address).len() == 300);
    (victim, tracer, address)
}

/// The kernel's TIME_WAITs towards that address.
fn time_waits(address: SocketAddr) -> Vec<Entry> {
    let mut entries = judge::sockets();
    entries.retain(|entry| entry.remote == address && entry.state == "TIME_WAIT");
    entries
}

/// The peers' delayed ACKs come while the victim still closes, dozens in one softirq, so that some changes are lost on a
/// slow machine (`conclusive`). Its own closes are not, and what is left does not depend on the others.
fn three_hundred_closes_are_summed_up() {
    let (mut victim, mut tracer, address) = pile(|pid| Tracer::attach(pid, &[]));
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report_with_losses();
    report.shows(&[]);
    assert_eq!(
        transitions(&tracer, victim.pid()),
        vec!["victim ESTABLISHED FIN_WAIT1"; 300]
    );
    let mut ports: Vec<_> = tracer
        .passed("transition")
        .map(|line| line["lport"].as_u64())
        .collect();
    let left = time_waits(address);
    let mut kernel: Vec<_> = left
        .iter()
        .map(|entry| Some(u64::from(entry.local.port())))
        .collect();
    ports.sort_unstable();
    kernel.sort_unstable();
    assert_eq!(ports, kernel);
    assert_eq!(
        report.left_while_alive(),
        [format!("300 time_wait to {}", address.port())]
    );
    let last = left.iter().map(|entry| entry.time + entry.expires).max();
    let told = moment(&report["left_while_alive"][0]["free_at"]);
    let off = told.duration_since(last.expect("300 of them"));
    assert!(off.abs() <= a_second(), "{report}");
}

fn three_hundred_closes_in_text() {
    let (mut victim, mut tracer, address) = pile(|pid| Tracer::attach_for_text(pid, &[]));
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.status(), 0);
    let text = tracer.stdout();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = format!("while alive it left 300 sockets in TIME_WAIT towards {address}");
    assert!(words.contains(&sentence), "{text}");
}

/// On loopback the victim's RST closes the peers' sockets in the victim's own context.
fn a_reset_is_not_taken_for_the_peers_sockets_close() {
    let (mut victim, mut peers) = Victim::serving("4", 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    for index in 0..3 {
        victim.does(&format!("linger 0 {index}"));
    }
    victim.does("close");
    for peer in &mut peers {
        assert_eq!(peer.end(), RESET);
    }
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN closed listener now"]);
    assert_eq!(transitions(&tracer, victim.pid()), [""; 0]);
    assert_eq!(report.left_while_alive(), [""; 0]);
}

/// After shutdown() and the peer's FIN the descriptor leads to a closed socket, and the TIME_WAIT is another one.
fn a_shutdown_leaves_time_wait_beside_the_open_socket() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let address = peers[0].address();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("shutdown 0");
    victim.does("shutdown 1");
    let mut peers = peers.into_iter().map(Peer::closes_when_closed);
    peers.next().expect("two of them").join().expect("it has closed");
    peers.for_each(drop);
    let mini = |entry: &Entry| entry.remote == address && entry.state == "TIME_WAIT";
    wait_until("the TIME_WAIT", || judge::sockets().iter().any(mini));
    tracer.signal(libc::SIGINT);
    let report = tracer.report();
    assert!(report["death"].is_null(), "{report}");
    let port = judge::sockets()
        .iter()
        .find(|entry| mini(entry))
        .expect("it was there")
        .local
        .port();
    assert_eq!(report.left_while_alive(), [format!("2 time_wait from {port}")]);
    assert_eq!(
        transitions(&tracer, victim.pid()),
        ["victim ESTABLISHED FIN_WAIT1", "victim ESTABLISHED FIN_WAIT1"]
    );
    tracer.finishes();
}

/// The process lives on, and so do its other sockets.
fn a_duration_ends_with_what_was_left() {
    let (mut victim, peers) = Victim::serving("4", 3);
    let mut tracer = Tracer::attach(victim.pid(), &["--duration", "2s"]);
    victim.does("shutdown 0");
    victim.does("drop 1");
    let report = tracer.report();
    assert!(report["death"].is_null(), "{report}");
    let port = judge::sockets();
    let port = port
        .iter()
        .find(|entry| entry.state == "LISTEN")
        .expect("the victim lives")
        .local
        .port();
    let mut left = report.left_while_alive();
    left.sort_unstable();
    assert_eq!(
        left,
        [format!("1 fin_wait2 from {port}"), format!("1 held from {port}")],
        "{report}"
    );
    assert_eq!(
        judge::count(port, "FIN_WAIT2"),
        2,
        "one of them has its descriptor still"
    );
    assert_eq!(judge::count(port, "ESTABLISHED"), 1);
    tracer.finishes();
    drop(peers);
}
