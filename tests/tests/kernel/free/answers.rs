//! What still sends: an answer on its way to a client that lives stays, whoever sent it.

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge::{self, Timer};
use sockleak_tests::limit::{limit, wait_for, wait_until};
use sockleak_tests::net::local_address;
use sockleak_tests::peer::{End, Peer, RESET};
use sockleak_tests::programs;
use sockleak_tests::stopped::Stopped;
use sockleak_tests::tracer::{Run, run};
use sockleak_tests::victim::Victim;

use super::{free, plain_bind, rows};
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::TimeWaitDestroy],
        named![
            an_answer_of_a_living_server_is_not_cut,
            the_end_of_an_answer_is_part_of_it,
            no_answer_is_cut_while_its_server_restarts,
            a_silent_peer_is_given_ten_seconds,
        ],
    )
}

/// A living server that has sent as much as fits, and closed. Its peer reads when the test lets it.
#[track_caller]
fn answered(half_closed: bool) -> (Victim, Peer, u64) {
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    let peer = Peer::connect_narrow(address);
    victim.does("accept 1");
    if half_closed {
        peer.shut_down();
        wait_until("CLOSE_WAIT", || judge::count(address.port(), "CLOSE_WAIT") == 1);
    }
    let sent = victim.does("fill 0").parse().expect("a number");
    victim.does("close");
    wait_until("a shut window", || {
        let sockets = judge::of_port(address.port());
        sockets.iter().any(|socket| socket.timer == Timer::Persist)
    });
    (victim, peer, sent)
}

/// The line of the socket that still sends.
#[track_caller]
fn of_answer(lines: &[Value]) -> &Value {
    let found = lines
        .iter()
        .find(|line| line["state"] == "FIN_WAIT1" || line["state"] == "LAST_ACK");
    found.expect("a socket that still sends")
}

fn an_answer_of_a_living_server_is_not_cut() {
    for (half_closed, expected) in [
        (false, "1 FIN_WAIT1 skipped port_in_use data_lost"),
        (true, "1 LAST_ACK skipped port_in_use data_lost"),
    ] {
        let (victim, mut peer, sent) = answered(half_closed);
        let port = peer.remote().port().to_string();
        let all = [expected, "1 LISTEN skipped listener -"];
        for arguments in [&[port.as_str()][..], &[&port, "--yes"]] {
            let (status, lines) = free(arguments);
            assert_eq!((status, rows(&lines)), (0, all.map(str::to_owned).to_vec()));
            let answer = of_answer(&lines);
            assert_eq!(answer["port_holders"][0]["pid"], victim.pid(), "{answer}");
            let waiting = judge::ss(peer.remote().port())
                .iter()
                .map(|row| row.send_queue)
                .max();
            assert_eq!(
                answer["lost_bytes"].as_u64().map(|bytes| bytes + 1),
                waiting,
                "and the FIN"
            );
        }
        let text = run(["free", &port]).stdout;
        for words in [
            &format!("(pid {})", victim.pid()),
            "maybe an answer",
            "--discard-unsent",
        ] {
            assert!(text.contains(words), "no `{words}` in\n{text}");
        }
        assert_eq!(peer.read_to_end(), (sent, End::Closed));
    }
    let (victim, mut peer, sent) = answered(false);
    let port = peer.remote().port().to_string();
    let text = run(["free", &port, "--discard-unsent"]).stdout;
    for words in [
        &format!("(pid {})", victim.pid()),
        "would destroy 1",
        "bytes that were sent",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    let (status, lines) = free(&[&port, "--discard-unsent", "--yes"]);
    let expected = ["1 FIN_WAIT1 destroyed - data_lost", "1 LISTEN skipped listener -"];
    assert_eq!((status, rows(&lines)), (0, expected.map(str::to_owned).to_vec()));
    let (read, end) = peer.read_to_end();
    assert!(read < sent, "{read} of {sent} bytes");
    assert_eq!(end, RESET);
}

/// Everything but the FIN is acknowledged. Without it a peer that has closed its own side would wait for ever.
fn the_end_of_an_answer_is_part_of_it() {
    for half_closed in [false, true] {
        let (mut victim, peers) = Victim::serving("4", 1);
        let [mut peer] = <[Peer; 1]>::try_from(peers).unwrap_or_else(|_| panic!("one peer"));
        let port = peer.remote().port();
        if half_closed {
            peer.shut_down();
            wait_until("CLOSE_WAIT", || judge::count(port, "CLOSE_WAIT") == 1);
        }
        peer.cut_off();
        victim.does("close");
        let (status, lines) = free(&[&port.to_string(), "--yes"]);
        let answer = of_answer(&lines);
        assert_eq!(status, 0);
        assert_eq!(
            (&answer["reason"], &answer["lost_bytes"]),
            (&"port_in_use".into(), &0.into())
        );
        let text = run(["free", &port.to_string()]).stdout;
        assert!(text.contains("its FIN is not acknowledged"), "{text}");
        peer.plug_in();
        assert_eq!(peer.read_to_end(), (0, End::Closed));
    }
}

/// Sends as much as fits.
#[track_caller]
fn fill(mut stream: &TcpStream) -> u64 {
    stream.set_nonblocking(true).expect("any socket can");
    let mut sent = 0;
    loop {
        match stream.write(&[b'x'; 65536]) {
            Ok(length) => sent += length as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("the peer lives: {error}"),
        }
    }
}

fn no_answer_is_cut_while_its_server_restarts() {
    const ROUNDS: u32 = 10;
    let address = local_address(
        plain_bind((Ipv4Addr::LOCALHOST, 0).into())
            .expect("any port")
            .as_fd(),
    );
    let address = address.expect("it is bound");
    let port = address.port().to_string();
    for round in 0..ROUNDS {
        closes_listener(address);
        let listener = TcpListener::bind(address).expect("it has SO_REUSEADDR");
        let mut peer = Peer::connect_narrow(address);
        let (accepted, _) = listener.accept().expect("a peer");
        let state = if round % 2 == 0 { "FIN_WAIT1" } else { "LAST_ACK" };
        if state == "LAST_ACK" {
            peer.shut_down();
            wait_until("CLOSE_WAIT", || judge::count(address.port(), "CLOSE_WAIT") == 1);
        }
        let sent = fill(&accepted);
        drop(accepted);
        wait_until(state, || judge::count(address.port(), state) == 1);
        let frees = |status: i32, peer: &mut Peer| {
            let (told, lines) = free(&[&port, "--yes"]);
            assert_eq!(of_answer(&lines)["action"], "skipped", "round {round}: {lines:?}");
            assert_eq!(told, status, "round {round}: {lines:?}");
            peer.receive(&mut [0; 1000]);
        };
        frees(0, &mut peer);
        drop(listener);
        closes_listener(address);
        // Now nobody has the port, and what is left there is in the way.
        frees(1, &mut peer);
        let _restarted = TcpListener::bind(address).expect("both have SO_REUSEADDR");
        frees(0, &mut peer);
        assert_eq!(peer.read_to_end(), (sent - 3000, End::Closed), "round {round}");
    }
}

/// Waits until nobody has the listener: a child of another test that is on its way to its program has everything that
/// this process had open.
#[track_caller]
fn closes_listener(address: SocketAddr) {
    wait_until("the end of the listener", || {
        judge::count(address.port(), "LISTEN") == 0
    });
}

/// Two peers of a dead server have gone without a word, with and without data on the way, and a third one lives but does
/// not read.
fn a_silent_peer_is_given_ten_seconds() {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let mut victim = Victim::start();
    let address = victim.listen("4 reuseaddr");
    let gone = [Peer::connect(address), Peer::connect(address)];
    let mut slow = Peer::connect_narrow(address);
    victim.does("accept 3");
    for peer in &gone {
        peer.cut_off();
    }
    victim.does("fill 0");
    let sent: u64 = victim.does("fill 2").parse().expect("a number");
    victim.killed_by(libc::SIGKILL);
    wait_until("FIN_WAIT1", || judge::count(address.port(), "FIN_WAIT1") == 3);
    let port = address.port().to_string();
    let (status, lines) = free(&[&port, "--yes"]);
    let unacknowledged = [
        "1 FIN_WAIT1 skipped unacknowledged peer_reset",
        "2 FIN_WAIT1 skipped unacknowledged data_lost",
    ];
    assert_eq!(
        (status, rows(&lines)),
        (1, unacknowledged.map(str::to_owned).to_vec())
    );

    // With the shortest timeout the sixth retransmission comes after 12.6 seconds, and then 12.8 are awaited.
    wait_for(limit() * 2, "six retransmissions", || {
        let sockets = judge::of_port(address.port());
        let waits_long = sockets.iter().filter(|socket| {
            socket.remote != slow.address()
                && socket.timer == Timer::Retransmit
                && socket.expires > Duration::from_secs(7)
        });
        let silent = |peer: &Peer| judge::last_ack(address, peer.address()) >= Duration::from_secs(12);
        waits_long.count() == 2 && gone.iter().all(silent)
    });
    let plan = [
        "1 FIN_WAIT1 skipped unacknowledged data_lost",
        "1 FIN_WAIT1 would_destroy - data_lost",
        "1 FIN_WAIT1 would_destroy - peer_reset",
    ];
    assert_eq!(rows(&free(&[&port]).1), plan);

    // A service starts after the plan was made by the first look, of two messages.
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "free", &port, "--yes"]);
    let (stopped, mut sockleak) = Stopped::after_messages(&mut command, SOCK_DIAG_BY_FAMILY, 2);
    let service = TcpListener::bind(address).expect("both have SO_REUSEADDR");
    drop(stopped);
    let run = Run {
        status: sockleak.status(),
        stdout: sockleak.stdout(),
        stderr: sockleak.stderr(),
    };
    let told = rows(&super::lines(&run));
    let expected = [
        "1 FIN_WAIT1 skipped port_in_use data_lost",
        "1 FIN_WAIT1 skipped port_in_use peer_reset",
        "1 FIN_WAIT1 skipped unacknowledged data_lost",
    ];
    assert_eq!(told, expected);
    drop(service);
    closes_listener(address);

    let (status, lines) = free(&[&port, "--yes"]);
    let done = plan.map(|row| row.replace("would_destroy", "destroyed"));
    assert_eq!(rows(&lines), [done[1].clone(), done[2].clone(), done[0].clone()]);
    assert_eq!(status, 1, "one is left");
    assert_eq!(slow.read_to_end(), (sent, End::Closed));
}
