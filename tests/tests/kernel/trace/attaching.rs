//! What is watched, and whose the sockets are.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use jiff::SignedDuration;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::judge;
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::peer::{Peer, RESET};
use sockleak_tests::programs;
use sockleak_tests::report::{Report, address, moment};
use sockleak_tests::sandbox;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            watch_says_what_was_open_before,
            no_call_tells_the_process_where_none_has_to,
            sockets_opened_after_the_attach,
            the_peers_sockets_are_not_blamed_on_the_victim,
            transitions_are_those_of_the_victim,
            a_process_in_another_network_namespace,
            several_processes,
            sockets_in_two_network_namespaces,
            once_ends_with_the_first_death,
            children_are_not_followed_if_not_wanted,
        ],
    );
    tests.extend(sandboxed(&[Need::Python], named![http_server_of_python]));
    tests.extend(sandboxed(
        &[Need::Python, Need::Ss],
        named![two_hundred_connections, two_hundred_connections_of_every_kind],
    ));
    tests
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

fn watch_says_what_was_open_before() {
    let (victim, _peers) = Victim::serving("4", 5);
    let mut tracer = Tracer::start(["--pid", &victim.pid().to_string()]);
    let watch = tracer.watches();
    assert_eq!(watch["pids"], json!([victim.pid()]));
    assert_eq!(
        (&watch["listeners"], &watch["connections"]),
        (&1.into(), &5.into()),
        "{watch}"
    );
    let hooks = watch["hooks"].as_array().expect("a list");
    assert!(hooks.iter().any(|hook| hook == "sched_process_exit"), "{watch}");
}

/// A kernel that refuses the program which saves the call would make no other row fail.
fn no_call_tells_the_process_where_none_has_to() {
    let victim = Victim::start();
    let mut tracer = Tracer::attach(victim.pid(), &["-vv"]);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let without = cfg!(target_arch = "x86_64") && version >= (6, 10);
    tracer.says_on_stderr(if without { "need no call" } else { "need a call" });
}

fn sockets_opened_after_the_attach() {
    let mut victim = Victim::start();
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let address = victim.listen("4");
    let _peers = victim.accept(address, 2);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&IDLE);
}

/// On loopback the kernel changes the peers' sockets in the victim's own context.
fn the_peers_sockets_are_not_blamed_on_the_victim() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&IDLE);
    for peer in &peers {
        let local = |socket: &&Value| address(&socket["laddr"], &socket["lport"]) == Some(peer.address());
        assert_eq!(report.sockets().iter().find(local), None, "{report}");
    }
}

/// What a process does to its sockets while it lives is told at once; what the kernel does to them at its
/// death is in the report.
fn transitions_are_those_of_the_victim() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _first = victim.accept(address, 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("close");
    let _second = victim.accept(address, 3);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let transitions: Vec<_> = tracer.passed("transition").collect();
    assert_eq!(transitions.len(), 2, "{transitions:?}");
    for line in transitions {
        assert_eq!(
            (&line["pid"], &line["lport"], &line["from"], &line["to"]),
            (
                &victim.pid().into(),
                &address.port().into(),
                &"ESTABLISHED".into(),
                &"FIN_WAIT1".into()
            ),
            "{line}"
        );
    }
    let open = report.in_state("ESTABLISHED");
    assert_eq!(open.len(), 3, "{report}");
    for socket in open {
        let changes = socket["transitions"].as_array().expect("a list");
        assert_eq!(
            (&changes[0]["from"], &changes[0]["to"]),
            (&"ESTABLISHED".into(), &"FIN_WAIT1".into())
        );
    }
}

fn a_process_in_another_network_namespace() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach_from(sandbox::outside(), victim.pid());
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&IDLE);
    let namespace = sandbox::inode();
    assert!(
        report.sockets().iter().all(|socket| socket["netns"] == namespace),
        "{report}"
    );
}

/// The sockets of one process may be in several namespaces; each is asked about its own.
fn sockets_in_two_network_namespaces() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    victim.does("own-network");
    victim.does("pair");
    // The client closes its side first. Left to the death, both ends may send their FIN before either
    // reads the other's, and then both have a TIME_WAIT.
    victim.does("shutdown 3");
    victim.does("read 4");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let inode = |path: String| fs::metadata(path).expect("it lives").ino();
    let other = inode(format!("/proc/{}/ns/net", victim.pid()));
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.reads(&[
        "1 CLOSE_WAIT closed peer_closed_first now",
        "1 FIN_WAIT2 time_wait shutdown_before timewait_timer",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        "2 LISTEN closed listener now",
    ]);
    let of = |netns: u64| {
        report
            .sockets()
            .iter()
            .filter(move |socket| socket["netns"] == netns)
    };
    assert_eq!(of(sandbox::inode()).count(), 3, "{report}");
    assert_eq!(of(other).count(), 3, "{report}");
}

fn several_processes() {
    let (mut first, _peers) = Victim::serving("4", 2);
    let (mut second, _more_peers) = Victim::serving("6", 2);
    let mut tracer = Tracer::start(["--pid", &format!("{},{}", first.pid(), second.pid())]);
    tracer.watches();
    for victim in [&mut second, &mut first] {
        victim.killed_by(libc::SIGKILL);
        let report = tracer.report();
        report.shows(&IDLE);
        assert_eq!(report["process"]["pid"], victim.pid());
    }
    tracer.finishes();
}

fn once_ends_with_the_first_death() {
    let (mut first, _peers) = Victim::serving("4", 2);
    let second = Victim::start();
    let mut tracer = Tracer::start(["--once", "--pid", &format!("{},{}", first.pid(), second.pid())]);
    tracer.watches();
    first.killed_by(libc::SIGKILL);
    tracer.report().shows(&IDLE);
    tracer.finishes();
}

fn children_are_not_followed_if_not_wanted() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &["--no-follow"]);
    let child = victim.forks("fork");
    victim.kill_child(child);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&IDLE);
    assert_eq!(report["process"]["pid"], victim.pid());
    tracer.finishes();
}

/// A program that nobody here wrote, with connections on which a request was answered.
fn http_server_of_python() {
    let folder = tempfile::tempdir().expect("an empty folder");
    let mut server = Command::new(programs::python().expect("a needed program"));
    server.args([
        "-u",
        "-m",
        "http.server",
        "--protocol",
        "HTTP/1.1",
        "--bind",
        "127.0.0.1",
        "0",
    ]);
    let mut victim = Victim::spawn(server.current_dir(&folder));
    let greeting = victim.line();
    let port = greeting
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .next();
    let port: u16 = port.unwrap_or_else(|| panic!("no port in {greeting}"));
    let mut peers: Vec<_> = (0..5)
        .map(|_| Peer::connect(([127, 0, 0, 1], port).into()))
        .collect();
    for peer in &mut peers {
        peer.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        peer.receive(&mut [0; 12]);
    }
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "5 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report.listener()["lport"], port);
}

/// A Python server with two hundred connections, of which a child may hold the listener.
fn big_server(before_the_accepts: &str) -> (Victim, Vec<Peer>, u16) {
    let mut victim = Victim::python(&format!(
        "import os, signal, socket\n\
         listener = socket.create_server(('127.0.0.1', 0), backlog=256)\n\
         print(listener.getsockname()[1])\n\
         {before_the_accepts}\n\
         connections = [listener.accept()[0] for _ in range(200)]\n\
         print('accepted')\n\
         signal.pause()\n"
    ));
    let port: u16 = victim.line().parse().expect("a port");
    let peers = (0..200)
        .map(|_| Peer::connect(([127, 0, 0, 1], port).into()))
        .collect();
    (victim, peers, port)
}

/// Every leftover has the addresses, the state and the remaining time that `ss` shows, and `ss` shows no more.
#[track_caller]
fn agrees_with_ss(report: &Report, port: u16) {
    let before = jiff::Timestamp::now();
    let mut shown = judge::ss(port);
    let after = jiff::Timestamp::now();
    shown.retain(|row| row.state != "LISTEN");
    let is_left = |socket: &&Value| socket["state"].is_string() && socket["state"] != "LISTEN";
    let leftovers: Vec<_> = report.sockets().iter().filter(is_left).collect();
    assert_eq!(leftovers.len(), shown.len(), "ss shows {shown:?}");
    for socket in leftovers {
        let remote = address(&socket["raddr"], &socket["rport"]);
        let row = shown.iter().find(|row| row.remote == remote);
        let row = row.unwrap_or_else(|| panic!("ss has no {socket}"));
        assert_eq!(Some(row.local), address(&socket["laddr"], &socket["lport"]));
        // `ss` looked between the two moments, and leaves out the milliseconds of times above nine seconds.
        let timer = row.timer.expect("a timer");
        let free_at = moment(&socket["free_at"]);
        let (least, most) = (
            free_at.duration_since(before + timer),
            free_at.duration_since(after + timer),
        );
        let second = SignedDuration::try_from(scaled(Duration::from_secs(1))).expect("a small duration");
        let off = SignedDuration::from_millis(250);
        assert!(
            least >= -off && most <= second + off,
            "{least:#} to {most:#} for {socket}"
        );
    }
}

fn two_hundred_connections() {
    let (mut victim, _peers, port) = big_server("");
    assert_eq!(victim.line(), "accepted");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGSEGV);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "200 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report["death"]["signal_name"], "SEGV");
    assert_eq!(report["summary"]["fin_wait2"], 200);
    agrees_with_ss(&report, port);
}

fn two_hundred_connections_of_every_kind() {
    let (mut victim, mut peers, port) =
        big_server("child = os.fork()\nif child == 0: os._exit(len(os.read(0, 1)))\nprint(child)");
    let child = victim.line().parse().expect("a process id");
    victim.adopt(child);
    assert_eq!(victim.line(), "accepted");
    drop(peers.drain(..50));
    for peer in &mut peers[..50] {
        peer.send(b"nobody reads this");
    }
    wait_until("50 FINs", || judge::count(port, "CLOSE_WAIT") == 50);
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGSEGV);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "50 CLOSE_WAIT closed peer_closed_first now",
        "50 ESTABLISHED reset unread_data now",
        "100 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report["death"]["signal_name"], "SEGV");
    assert_eq!(report.listener()["holders"][0]["pid"], child);
    for peer in &mut peers[..50] {
        assert_eq!(peer.end(), RESET);
    }
    agrees_with_ss(&report, port);
}
