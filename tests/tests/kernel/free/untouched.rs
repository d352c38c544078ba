//! What is alive, and stays: listeners, connections, and what somebody has.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net;
use sockleak_tests::peer::Peer;
use sockleak_tests::programs;
use sockleak_tests::sock_destroy::SOCK_DESTROY;
use sockleak_tests::stopped::Stopped;
use sockleak_tests::tracer::{Run, run};
use sockleak_tests::victim::Victim;

use super::{free, lines, on_port, rows, settles};
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::TimeWaitDestroy],
        named![
            a_restarted_service_is_untouched,
            a_restart_between_the_look_and_the_destruction,
            what_a_process_holds_is_named,
        ],
    );
    tests.extend(sandboxed(
        &[Need::TimeWaitDestroy, Need::Mptcp],
        named![an_mptcp_connection_is_left_alone],
    ));
    tests
}

/// Both ends of a connection, and its listener, work.
#[track_caller]
pub fn serves(listener: &TcpListener, connections: &mut [(TcpStream, TcpStream)]) {
    for (client, server) in connections {
        let mut byte = [0];
        client.write_all(b"?").expect("a live connection");
        server.read_exact(&mut byte).expect("a live connection");
        server.write_all(b"!").expect("a live connection");
        client.read_exact(&mut byte).expect("a live connection");
        assert_eq!(byte, *b"!");
    }
    let address = listener.local_addr().expect("it listens");
    let _client = TcpStream::connect(address).expect("it listens");
    listener.accept().expect("it listens");
}

fn a_restarted_service_is_untouched() {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    let _peers = victim.accept(address, 3);
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("FIN_WAIT2", 3)]);
    // The standard library sets SO_REUSEADDR too.
    let service = TcpListener::bind(address).expect("both have SO_REUSEADDR");
    let client = TcpStream::connect(address).expect("it listens");
    let (server, _) = service.accept().expect("a client");
    // Nobody has a file of what waits to be accepted, and its peer may have closed one direction already.
    let waiting = TcpStream::connect(address).expect("it listens");
    let ending = TcpStream::connect(address).expect("it listens");
    ending.shutdown(Shutdown::Write).expect("it is connected");
    wait_until("CLOSE_WAIT", || judge::count(address.port(), "CLOSE_WAIT") == 1);

    let (status, lines) = free(&[&address.port().to_string(), "--yes"]);
    assert_eq!(status, 0, "all that is on the port lives");
    let expected = [
        "1 CLOSE_WAIT skipped live_connection -",
        "1 LISTEN skipped listener -",
        "2 ESTABLISHED skipped live_connection -",
        "3 FIN_WAIT2 destroyed - peer_reset",
    ];
    assert_eq!(rows(&lines), expected);
    let (status, lines) = free(&[&address.port().to_string(), "--yes"]);
    assert_eq!(
        (status, rows(&lines)),
        (0, expected[..3].iter().map(ToString::to_string).collect())
    );
    let (accepted, from) = service.accept().expect("the one that waits");
    assert_eq!(from, waiting.local_addr().expect("it is connected"));
    service.accept().expect("the other one that waits");
    serves(&service, &mut [(client, server), (waiting, accepted)]);
}

/// Ends what is left of a dead server, restarts it, and connects the first peer from its old address: the kernel
/// finds that connection by the leftover's addresses, and by those of the others the listener.
#[track_caller]
pub fn restart(address: SocketAddr, peers: Vec<Peer>) -> (TcpListener, Vec<(TcpStream, TcpStream)>) {
    let old = peers[0].address();
    peers.into_iter().for_each(Peer::reset);
    settles(address.port(), &[]);
    let service = TcpListener::bind(address).expect("the port is free");
    let client = net::socket(old, 0, 0).expect("a socket");
    net::bind(&client, old).expect("its old address");
    net::connect(&client, address).expect("it listens");
    let (server, from) = service.accept().expect("a client");
    assert_eq!(from, old);
    (service, vec![(client.into(), server)])
}

/// Trap 39: without the cookie the kernel would take the new connection, and for the other address the listener.
fn a_restart_between_the_look_and_the_destruction() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let address = peers[0].remote();
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("FIN_WAIT2", 2)]);
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "free", &address.port().to_string(), "--yes"]);
    let (stopped, mut sockleak) = Stopped::before_message(&mut command, SOCK_DESTROY);
    let (service, mut connections) = restart(address, peers);
    drop(stopped);
    assert_eq!(sockleak.status(), 0);
    let run = Run {
        status: 0,
        stdout: sockleak.stdout(),
        stderr: sockleak.stderr(),
    };
    assert_eq!(rows(&lines(&run)), ["2 FIN_WAIT2 gone - -"]);
    serves(&service, &mut connections);
}

#[track_caller]
fn is_held_by(line: &Value, pid: u32) {
    let holders = line["holders"].as_array().expect("a list");
    assert!(holders.iter().any(|holder| holder["pid"] == pid), "{line}");
}

fn what_a_process_holds_is_named() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let address = peers[0].remote();
    // FIN_WAIT2 of a process that has closed one direction and reads on.
    victim.does("shutdown 0");
    wait_until("FIN_WAIT2", || judge::count(address.port(), "FIN_WAIT2") == 1);
    let before = on_port(address.port());
    let port = address.port().to_string();
    let (status, lines) = free(&[&port, "--yes"]);
    let expected = [
        "1 ESTABLISHED skipped live_connection -",
        "1 FIN_WAIT2 skipped held -",
        "1 LISTEN skipped listener -",
    ];
    assert_eq!((status, rows(&lines)), (0, expected.map(str::to_owned).to_vec()));
    for line in &lines {
        is_held_by(line, victim.pid());
    }
    // Its child has them all and outlives it.
    let child = victim.forks("fork");
    victim.killed_by(libc::SIGKILL);
    let (status, lines) = free(&[&port, "--yes"]);
    assert_eq!((status, rows(&lines)), (0, expected.map(str::to_owned).to_vec()));
    for line in &lines {
        is_held_by(line, child);
    }
    assert_eq!(on_port(address.port()), before);
    let text = run(["free", &port]);
    assert!(
        text.stdout.contains(&format!("(pid {child}, fd ")),
        "{}",
        text.stdout
    );
}

/// The MPTCP socket waits for its peer, and its TCP socket, which no file refers to, is ESTABLISHED meanwhile.
fn an_mptcp_connection_is_left_alone() {
    let mut victim = Victim::start();
    let address = victim.listen("4 mptcp");
    let _peer = Peer::connect_mptcp(address);
    victim.does("accept 1");
    victim.killed_by(libc::SIGKILL);
    settles(address.port(), &[("ESTABLISHED", 1)]);
    let (status, lines) = free(&[&address.port().to_string(), "--yes"]);
    assert_eq!(
        (status, rows(&lines)),
        (1, vec!["1 ESTABLISHED skipped mptcp -".to_owned()])
    );
    settles(address.port(), &[("ESTABLISHED", 1)]);
}
