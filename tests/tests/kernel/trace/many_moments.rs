//! Predicted against real moments: peers of every kind at once, and what the kernel does with what is left towards them.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::limit::scaled;
use sockleak_tests::net;
use sockleak_tests::peer::Peer;
use sockleak_tests::report::{address, moment};
use sockleak_tests::sandbox::{self, sysctl};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use super::moments::rto_max_is_there;
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![long_three_hundred_moments_of_all_kinds_are_none_too_late],
    )
}

/// What a peer does about the victim's end. What comes after the report comes at a random moment of the time that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Idle,
    ClosesAtOnce,
    ClosesLate,
    SendsLate,
    Reconnects,
    Silent,
    SilentThenBack,
    SilentThenBackThenClosesLate,
    ClosedFirstThenSilent,
    ClosedFirstThenSilentThenBack,
    SilentButCloses,
    SilentButClosesThenBack,
    WindowClosedAndSilent,
    WindowClosedAndAlive,
    WindowClosedThenReset,
    WindowClosedThenOpen,
}

use Kind::*;

const KINDS: [Kind; 16] = [
    Idle,
    ClosesAtOnce,
    ClosesLate,
    SendsLate,
    Reconnects,
    Silent,
    SilentThenBack,
    SilentThenBackThenClosesLate,
    ClosedFirstThenSilent,
    ClosedFirstThenSilentThenBack,
    SilentButCloses,
    SilentButClosesThenBack,
    WindowClosedAndSilent,
    WindowClosedAndAlive,
    WindowClosedThenReset,
    WindowClosedThenOpen,
];

impl Kind {
    /// Nothing that this peer does ends a leftover before its timer.
    const fn only_the_timer_ends_it(self) -> bool {
        matches!(
            self,
            Idle | Silent
                | ClosedFirstThenSilent
                | SilentButCloses
                | WindowClosedAndSilent
                | WindowClosedAndAlive
        )
    }

    const fn fills_the_window(self) -> bool {
        matches!(
            self,
            WindowClosedAndSilent | WindowClosedAndAlive | WindowClosedThenReset | WindowClosedThenOpen
        )
    }

    const fn is_cut_off(self) -> bool {
        matches!(
            self,
            Silent
                | SilentThenBack
                | SilentThenBackThenClosesLate
                | ClosedFirstThenSilent
                | ClosedFirstThenSilentThenBack
                | SilentButCloses
                | SilentButClosesThenBack
                | WindowClosedAndSilent
        )
    }
}

/// One connection of the victim.
struct Connection {
    kind: Kind,
    local: SocketAddr,
    remote: SocketAddr,
    peer: Option<Peer>,
    /// A client that came again from the same address.
    again: Option<OwnedFd>,
    /// When the peer does something next.
    due: Option<Timestamp>,
    /// It is back, and has still to close.
    is_back: bool,
    /// The last moment at which the kernel was seen to have it, and the first at which it had not.
    seen: Option<Timestamp>,
    gone: Option<Timestamp>,
}

impl Connection {
    /// Does what is due, and says how long after the next thing is.
    fn acts(&mut self) -> Option<Duration> {
        let peer = self.peer.take();
        match (self.kind, peer) {
            (SilentThenBackThenClosesLate, Some(peer)) if !self.is_back => {
                peer.plug_in();
                self.is_back = true;
                self.peer = Some(peer);
                return Some(Duration::from_millis(1500));
            }
            (SilentThenBack | ClosedFirstThenSilentThenBack | SilentButClosesThenBack, Some(peer)) => {
                peer.plug_in();
                self.peer = Some(peer);
            }
            (SendsLate, Some(mut peer)) => {
                peer.send(b"late");
                self.peer = Some(peer);
            }
            (WindowClosedThenReset, Some(peer)) => peer.reset(),
            (WindowClosedThenOpen, Some(mut peer)) => drop(thread::spawn(move || peer.end())),
            (Reconnects, None) => {
                let client = net::socket(self.remote, 0, libc::SOCK_NONBLOCK).expect("a socket");
                // The address is in use while the peer's last ACK is on its way.
                if net::bind(&client, self.remote).is_ok() {
                    let _ = net::connect(&client, self.local);
                }
                self.again = Some(client);
            }
            // Those that close late, or that have nothing else to do.
            (_, peer) => drop(peer),
        }
        None
    }
}

/// A namespace with these sysctls, a victim in it, and what became of its connections.
struct Setting {
    seed: u64,
    orphan_retries: u64,
    fin_timeout: u64,
    /// Else it is the kernel's own, and a closed window takes minutes.
    short_rto_max: bool,
    connections: usize,
}

/// For each kind: how many were predicted, and how many of them ended early by what.
type Outcomes = BTreeMap<(Kind, String), usize>;

/// What the report says of what is left, by the address of the peer.
type Promises<'a> = HashMap<SocketAddr, &'a Value>;

impl Setting {
    fn plays(&self) -> Outcomes {
        self.enters();
        let (mut victim, mut connections) = self.connects();
        let mut tracer = Tracer::attach(victim.pid(), &[]);
        for connection in &mut connections {
            if matches!(connection.kind, ClosesAtOnce | Reconnects) {
                let peer = connection.peer.take().expect("it is connected");
                drop(peer.closes_when_closed());
            }
        }
        victim.killed_by(libc::SIGKILL);
        for connection in &connections {
            if matches!(connection.kind, SilentButCloses | SilentButClosesThenBack) {
                connection.peer.as_ref().expect("it is connected").shut_down();
            }
        }
        let report = tracer.report();
        let promises: Promises<'_> = report
            .sockets()
            .iter()
            .filter(|socket| socket["free_at"].is_string() && socket["free_rule"] != "now")
            .filter_map(|socket| Some((address(&socket["raddr"], &socket["rport"])?, socket)))
            .collect();
        connections.retain(|connection| promises.contains_key(&connection.remote));
        self.plans(&mut connections, &promises);
        watch(&mut connections, &promises);
        let mut outcomes = Outcomes::new();
        for connection in &connections {
            let outcome = judged(connection, promises[&connection.remote]);
            *outcomes.entry((connection.kind, outcome)).or_default() += 1;
        }
        outcomes
    }

    fn enters(&self) {
        sandbox::enter().expect("root may make a namespace");
        sysctl("ipv4/tcp_rfc1337", 0);
        sysctl("ipv4/tcp_fin_timeout", self.fin_timeout);
        sysctl("ipv4/tcp_orphan_retries", self.orphan_retries);
        if self.short_rto_max {
            sysctl("ipv4/tcp_rto_max_ms", 1000);
        }
    }

    /// The victim and its connections, as they are when it dies.
    fn connects(&self) -> (Victim, Vec<Connection>) {
        let mut victim = Victim::start();
        let local = victim.listen("4");
        let connections: Vec<Connection> = (0..self.connections)
            .map(|number| self.connect(&mut victim, local, KINDS[number % KINDS.len()]))
            .collect();
        for (number, connection) in connections.iter().enumerate() {
            if connection.kind.fills_the_window() {
                victim.does(&format!("fill {number}"));
            }
            let peer = connection.peer.as_ref().expect("it is connected");
            if matches!(
                connection.kind,
                ClosedFirstThenSilent | ClosedFirstThenSilentThenBack
            ) {
                peer.shut_down();
            }
            if connection.kind.is_cut_off() {
                peer.cut_off();
            }
        }
        (victim, connections)
    }

    /// Says when each peer does what it does.
    fn plans(&self, connections: &mut [Connection], promises: &Promises<'_>) {
        let mut random = Rng::with_seed(self.seed);
        let now = Timestamp::now();
        for connection in connections {
            let at = moment(&promises[&connection.remote]["free_at"]);
            let left = at.duration_since(now).as_millis().max(1).unsigned_abs();
            // A little more than the time that is left, so that some come too late.
            let millis = random.u64(..=u64::try_from(left).expect("a small number") * 6 / 5);
            let after = SignedDuration::from_millis(millis.try_into().expect("a small number"));
            connection.due = Some(now + after).filter(|_| !connection.kind.only_the_timer_ends_it());
        }
    }

    fn connect(&self, victim: &mut Victim, local: SocketAddr, kind: Kind) -> Connection {
        let kind = match kind {
            WindowClosedAndAlive if !self.short_rto_max => WindowClosedAndSilent,
            kind => kind,
        };
        let peer = match kind {
            // What has to be read in the end is read fast.
            WindowClosedThenOpen => Peer::connect(local),
            kind if kind.fills_the_window() => Peer::connect_narrow(local),
            _ => Peer::connect(local),
        };
        victim.does("accept 1");
        Connection {
            kind,
            local,
            remote: peer.address(),
            peer: Some(peer),
            again: None,
            due: None,
            is_back: false,
            seen: None,
            gone: None,
        }
    }
}

/// Lets the peers do what they do, until the kernel has nothing left, or a minute more than was promised has passed.
fn watch(connections: &mut [Connection], promises: &Promises<'_>) {
    let latest = promises
        .values()
        .map(|promise| moment(&promise["free_at_latest"]));
    let end = latest.max().expect("some are left") + SignedDuration::from_secs(60);
    while Timestamp::now() < end && connections.iter().any(|connection| connection.gone.is_none()) {
        let before = Timestamp::now();
        let left: HashMap<(SocketAddr, SocketAddr), u64> = judge::sockets()
            .into_iter()
            .map(|entry| ((entry.local, entry.remote), entry.inode))
            .collect();
        let after = Timestamp::now();
        for connection in connections
            .iter_mut()
            .filter(|connection| connection.gone.is_none())
        {
            match left.get(&(connection.local, connection.remote)) {
                Some(0) => connection.seen = Some(before),
                _ => connection.gone = Some(after),
            }
        }
        for connection in connections.iter_mut() {
            if connection.due.is_some_and(|due| due <= Timestamp::now()) {
                let next = connection.acts();
                connection.due =
                    next.map(|after| Timestamp::now() + SignedDuration::try_from(after).unwrap());
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// No leftover is there after its latest moment, and one that is gone before its moment is so by something that was told.
fn judged(connection: &Connection, promise: &Value) -> String {
    let kind = connection.kind;
    let (at, latest) = (moment(&promise["free_at"]), moment(&promise["free_at_latest"]));
    let gone = connection.gone;
    let gone = gone.unwrap_or_else(|| panic!("{kind:?}: the kernel still has {promise}"));
    let softirq = SignedDuration::try_from(scaled(Duration::from_millis(50))).expect("a small duration");
    if let Some(seen) = connection.seen {
        assert!(seen <= latest + softirq, "{kind:?}: seen at {seen}: {promise}");
    }
    if gone >= at {
        return "in the range".to_owned();
    }
    assert!(
        !kind.only_the_timer_ends_it(),
        "{kind:?}: gone at {gone}: {promise}"
    );
    let by = promise["earlier_by"].as_str();
    let by = by.unwrap_or_else(|| panic!("{kind:?}: gone at {gone}, and nothing said why: {promise}"));
    format!("early by {by}")
}

fn long_three_hundred_moments_of_all_kinds_are_none_too_late() {
    /// Replays what a seed has shown.
    const SEED: &str = "SOCKLEAK_TEST_SEED";
    let chosen = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let now = Timestamp::now().as_second().unsigned_abs();
    let seed: u64 = chosen.unwrap_or(now);
    sandbox::tell(&format!("{SEED}={seed}"));
    let settings = [1, 2, 3].map(|orphan_retries| {
        let mut random = Rng::with_seed(seed + orphan_retries);
        Setting {
            seed: random.u64(..),
            orphan_retries,
            fin_timeout: 3 + random.u64(..5),
            short_rto_max: orphan_retries > 1 && rto_max_is_there(),
            connections: 160,
        }
    });
    let outcomes = thread::scope(|scope| {
        let threads = settings.each_ref().map(|setting| scope.spawn(|| setting.plays()));
        threads.map(|thread| {
            thread.join().unwrap_or_else(|payload| {
                let told = payload
                    .downcast_ref::<String>()
                    .map_or("it panicked", String::as_str);
                panic!("{told}")
            })
        })
    });
    let mut sum = Outcomes::new();
    for (outcome, count) in outcomes.into_iter().flatten() {
        *sum.entry(outcome).or_default() += count;
    }
    let total: usize = sum.values().sum();
    println!("seed {seed}: {total} moments, none too late");
    for ((kind, outcome), count) in &sum {
        println!("{count:4} {kind:?}: {outcome}");
    }
    assert!(total >= 300, "{total} moments: {sum:?}");
}
