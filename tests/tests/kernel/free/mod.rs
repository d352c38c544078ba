//! `sockleak free`: what it destroys, what it leaves alone, and what it refuses.

mod answers;
mod destroying;
mod inputs;
mod powers;
mod recorded;
mod untouched;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net;
use sockleak_tests::peer::Peer;
use sockleak_tests::record;
use sockleak_tests::tracer::{Run, run};
use sockleak_tests::victim::Victim;

pub fn tests() -> Vec<Trial> {
    let tests = [
        answers::tests(),
        destroying::tests(),
        inputs::tests(),
        powers::tests(),
        recorded::tests(),
        untouched::tests(),
    ];
    tests.into_iter().flatten().collect()
}

/// Runs `sockleak -o json free` and gives its status and its lines.
#[track_caller]
fn free(arguments: &[&str]) -> (i32, Vec<Value>) {
    let run = run(["-o", "json", "free"].iter().chain(arguments));
    (run.status, lines(&run))
}

#[track_caller]
fn lines(run: &Run) -> Vec<Value> {
    let line = |line: &str| {
        assert!(line.starts_with(r#"{"type":"free","v":2,"#), "{line}");
        record::of(line)
    };
    run.stdout.lines().map(line).collect()
}

/// The lines as `COUNT STATE action reason hazard`.
fn rows(lines: &[Value]) -> Vec<String> {
    let mut rows: Vec<(String, usize)> = Vec::new();
    for line in lines {
        let words = ["state", "action", "reason", "hazard"].map(|key| line[key].as_str().unwrap_or("-"));
        let row = words.join(" ");
        match rows.iter_mut().find(|(known, _)| *known == row) {
            Some((_, count)) => *count += 1,
            None => rows.push((row, 1)),
        }
    }
    let mut rows: Vec<String> = rows.iter().map(|(row, count)| format!("{count} {row}")).collect();
    rows.sort();
    rows
}

/// What a server does on its start that has no SO_REUSEADDR.
fn plain_bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = net::socket(address, 0, 0)?;
    net::bind(&socket, address)?;
    net::listen(&socket, 1)?;
    Ok(socket)
}

#[track_caller]
fn is_in_use(address: SocketAddr) {
    let error = plain_bind(address).expect_err("something has the port");
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
}

/// What the kernel has on a port: states and addresses.
fn on_port(port: u16) -> Vec<(&'static str, SocketAddr, SocketAddr, u64)> {
    let entries = judge::of_port(port).into_iter();
    let mut seen: Vec<_> = entries
        .map(|entry| (entry.state, entry.local, entry.remote, entry.inode))
        .collect();
    seen.sort_unstable();
    seen
}

/// Waits for sockets without an owner, and nothing else, in these states on the port.
#[track_caller]
fn settles(port: u16, states: &[(&str, usize)]) {
    wait_until("the leftovers", || {
        let all: usize = states.iter().map(|(_, count)| count).sum();
        judge::of_port(port).len() == all
            && states
                .iter()
                .all(|(state, count)| judge::count(port, state) == *count)
    });
}

/// A dead server's connections: three in TIME_WAIT, two in FIN_WAIT2, one in FIN_WAIT1 and one in LAST_ACK.
#[track_caller]
fn crashed() -> (SocketAddr, Vec<Peer>) {
    let (mut victim, mut peers) = Victim::serving("4", 7);
    let address = peers[0].remote();
    peers[0].cut_off();
    peers[1].shut_down();
    wait_until("CLOSE_WAIT", || judge::count(address.port(), "CLOSE_WAIT") == 1);
    peers[1].cut_off();
    let closing: Vec<_> = peers.drain(4..).map(Peer::closes_when_closed).collect();
    victim.killed_by(libc::SIGKILL);
    for peer in closing {
        peer.join().expect("it has closed");
    }
    let states = [
        ("TIME_WAIT", 3),
        ("FIN_WAIT2", 2),
        ("FIN_WAIT1", 1),
        ("LAST_ACK", 1),
    ];
    settles(address.port(), &states);
    (address, peers)
}
