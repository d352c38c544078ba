//! Whether a restart can bind: the verdict beside what `bind()` and `listen()` really say, for each kind of
//! leftover, the options of the old socket, its address, and every new socket.

use libtest_mimic::Trial;
use serde_json::json;
use sockleak_tests::binding::{self, New};
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net::Family;
use sockleak_tests::peer::Peer;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::Ipv6],
        named![
            beside_a_time_wait,
            beside_a_fin_wait2,
            beside_a_fin_wait1,
            beside_a_last_ack,
            beside_a_connection_of_a_child,
            beside_a_listener_of_a_child,
            beside_a_bound_socket,
            beside_an_outgoing_connection,
            the_report_of_a_crash_says_it_for_what_the_dead_listened_on,
        ],
    )
}

/// The old sockets: each combination of options at one address, and each address with one.
const OLD: [&str; 9] = [
    "any",
    "any reuseaddr",
    "any reuseport",
    "any reuseaddr reuseport",
    "4 reuseaddr",
    "dual",
    "dual v6only",
    "6",
    "mapped",
];

/// A server that died, and what keeps its leftover as it is.
struct Scene {
    port: u16,
    _victim: Victim,
    _peer: Option<Peer>,
}

impl Scene {
    /// The server is killed now.
    fn after(mut victim: Victim, peer: Option<Peer>, port: u16) -> Self {
        victim.killed_by(libc::SIGKILL);
        Self {
            port,
            _victim: victim,
            _peer: peer,
        }
    }
}

/// A server with one connection, of the address family that its listener is for. A dual-stack one gets IPv4.
fn serving(old: &str) -> (Victim, Peer, u16) {
    let mut victim = Victim::start();
    let port = victim.listen(old).port();
    let family = if old.contains("v6only") || old.starts_with('6') {
        Family::V6
    } else {
        Family::V4
    };
    let peer = Peer::connect(family.address(port));
    victim.does("accept 1");
    (victim, peer, port)
}

/// Makes a scene of each kind, one after the other, waits until the kernel has that state, and compares.
fn compare(state: &str, mut make: impl FnMut(&str) -> Scene) {
    for old in OLD {
        let scene = make(old);
        wait_until(&format!("{state} of {old}"), || {
            judge::count(scene.port, state) > 0
        });
        let told = format!("{state}, old socket {old}");
        binding::agree(scene.port, &told, false);
        if !old.contains("reuse") {
            binding::agree(scene.port, &told, true);
        }
        assert!(judge::count(scene.port, state) > 0, "the leftover went meanwhile");
    }
}

fn beside_a_time_wait() {
    compare("TIME_WAIT", |old| {
        let (victim, peer, port) = serving(old);
        let peer = peer.closes_when_closed();
        let scene = Scene::after(victim, None, port);
        peer.join().expect("it has closed");
        scene
    });
}

fn beside_a_fin_wait2() {
    compare("FIN_WAIT2", |old| {
        let (victim, peer, port) = serving(old);
        Scene::after(victim, Some(peer), port)
    });
}

fn beside_a_fin_wait1() {
    compare("FIN_WAIT1", |old| {
        let (victim, peer, port) = serving(old);
        peer.cut_off();
        Scene::after(victim, Some(peer), port)
    });
}

fn beside_a_last_ack() {
    compare("LAST_ACK", |old| {
        let (victim, peer, port) = serving(old);
        peer.shut_down();
        wait_until("the FIN arrives", || judge::count(port, "CLOSE_WAIT") == 1);
        peer.cut_off();
        Scene::after(victim, Some(peer), port)
    });
}

fn beside_a_connection_of_a_child() {
    compare("ESTABLISHED", |old| {
        let (mut victim, peer, port) = serving(old);
        victim.does("drop listener");
        victim.forks("fork");
        Scene::after(victim, Some(peer), port)
    });
}

fn beside_a_listener_of_a_child() {
    compare("LISTEN", |old| {
        let mut victim = Victim::start();
        let port = victim.listen(old).port();
        victim.forks("fork");
        Scene::after(victim, None, port)
    });
}

/// No table of the kernel lists it before 6.8, and `ss` never does.
fn beside_a_bound_socket() {
    for old in OLD {
        let mut victim = Victim::start();
        let address = victim.does(&format!("bind {old}"));
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        binding::agree(
            port.expect("an address"),
            &format!("bound, old socket {old}"),
            false,
        );
    }
}

/// A client that has the port as its ephemeral one never set SO_REUSEADDR.
fn beside_an_outgoing_connection() {
    for family in [Family::V4, Family::V6] {
        let server = std::net::TcpListener::bind(family.address(0)).expect("an address of the sandbox");
        let mut victim = Victim::start();
        victim.does(&format!("connect {}", server.local_addr().expect("it is bound")));
        let (_end, client) = server.accept().expect("the victim has connected");
        binding::agree(client.port(), &format!("a client of {family:?}"), false);
        victim.killed_by(libc::SIGKILL);
        wait_until("FIN_WAIT2", || judge::count(client.port(), "FIN_WAIT2") == 1);
        binding::agree(client.port(), &format!("a dead client of {family:?}"), true);
    }
}

/// Asked about the addresses of the dead process alone, with each combination of options.
fn the_report_of_a_crash_says_it_for_what_the_dead_listened_on() {
    for old in OLD {
        let (mut victim, _peer, port) = serving(old);
        victim.does("bind 4");
        let mut tracer = Tracer::attach(victim.pid(), &[]);
        victim.killed_by(libc::SIGKILL);
        let report = tracer.report();
        let restart = &report["restart"];
        let places = restart.as_array().map(Vec::len);
        assert_eq!(places, Some(2), "the listener and the bound socket: {report}");
        let listener = report.listener();
        let mut restarting = Victim::start();
        // A socket of a single IPv6 address is always IPv6 only (`__inet6_bind`).
        let v6only = listener["laddr"] == "::1" || old.contains("v6only");
        let is_there = |new: &New| listener["laddr"] == json!(new.address) && !new.v6only;
        for new in New::all().into_iter().filter(is_there) {
            let new = New { v6only, ..new };
            let verdict = new.verdict(port, restart);
            let told = (verdict["bind"].clone(), verdict["listen"].clone());
            let (bind, listen) = new.tries(&mut restarting, port);
            assert_eq!(told, (bind.into(), listen.into()), "{old}, {new:?}: {report}");
        }
    }
}
