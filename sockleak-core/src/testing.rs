//! Sockets and sightings for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use smallvec::{SmallVec, smallvec};

use crate::observed::*;
use crate::port::Addressing;
use crate::verdict::*;

/// The moment of death in the tests, in seconds since the epoch.
pub const DEATH: i64 = 1_760_000_000;

/// That many milliseconds after [`DEATH`].
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(DEATH * 1000 + millis).expect("the moment is in jiff's range")
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("the test's address is one")
}

/// A socket of the inventory, changed step by step.
#[derive(Clone)]
pub struct SocketBuilder(Socket);

/// A connection of 127.0.0.1:8080 (or the listener there) with cookie 7 and inode 70.
pub fn socket(state: State) -> SocketBuilder {
    let connected = !matches!(state, State::Listen);
    SocketBuilder(Socket {
        id: SocketId {
            sk: 0xffff_8880_0000_1000,
            since: 1,
            tgid: 4242,
            origin: Origin::Inventory,
        },
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
        local: addr("127.0.0.1:8080"),
        remote: connected.then(|| addr("127.0.0.1:40310")),
        netns: 1,
        cookie: Some(7),
        fds: smallvec![3],
        inode: Some(70),
        subflows: Vec::new(),
        subflows_complete: false,
        references: Some(1),
        state_at_death: state,
        shutdown: false,
        unread_bytes: 0,
        unacked_bytes: 0,
        accept_queue: None,
        reuseaddr: true,
        reuseport: false,
        v6only: None,
        linger: None,
        linger2_negative: false,
        repair: false,
        reset_before: false,
        uid: None,
        device: 0,
        nonlocal: false,
        transitions: SmallVec::new(),
        transitions_truncated: false,
        reset_sent: None,
        reset_received: None,
    })
}

impl SocketBuilder {
    /// Adds changes of state, a millisecond apart.
    pub fn changes(mut self, changes: &[(State, State)]) -> Self {
        for &(from, to) in changes {
            let time = at(i64::try_from(self.0.transitions.len()).expect("few changes") + 1);
            self.0.transitions.push(Transition::new(time, from, to));
        }
        self
    }

    /// Anything else.
    pub fn with(mut self, change: impl FnOnce(&mut Socket)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn build(self) -> Socket {
        self.0
    }
}

/// The mini socket or orphan that such a socket leaves: no inode, 59.7 s on the time-wait timer.
pub fn sighting(socket: &Socket, state: State) -> Sighting {
    Sighting {
        protocol: socket.protocol,
        state,
        local: socket.local,
        remote: socket.remote.unwrap_or_else(|| addr("0.0.0.0:0")),
        cookie: socket.cookie.unwrap_or(99),
        inode: 0,
        timer: Timer::TimeWait,
        expires: Duration::from_millis(59_700),
        retransmits: 0,
        rto: None,
        backoff: 0,
        send_queue: 0,
        last_ack: None,
        timestamps: None,
        interface: 0,
        is_subflow: false,
    }
}

/// The kernel's defaults.
pub fn tcp_timeouts() -> TcpTimeouts {
    TcpTimeouts {
        fin_timeout: Duration::from_secs(60),
        retries2: 15,
        rto_max: Duration::from_secs(120),
    }
}

/// A look at namespace 1, 100 ms after the death.
pub fn snapshot(sightings: Vec<Sighting>) -> Snapshot {
    Snapshot {
        netns: 1,
        cookie: None,
        scope: None,
        began: at(100),
        time: at(100),
        sightings: Some(sightings.into()),
        refused: None,
        orphan_retries: Some(8),
        tcp_timeouts: Some(tcp_timeouts()),
        overflow: None,
        owners: None,
        addressing: Addressing::default(),
        shows_bound: true,
        local_ports: None,
        same_destination: None,
    }
}

impl Snapshot {
    /// What was seen, to be changed.
    pub fn seen_mut(&mut self) -> &mut Vec<Sighting> {
        Arc::make_mut(self.sightings.get_or_insert_default())
    }

    /// Everything that was seen, also to the same destinations.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Sighting> {
        let lists = self.sightings.iter_mut().chain(&mut self.same_destination);
        lists.flat_map(|list| Arc::make_mut(list).iter_mut())
    }
}

/// A range of a hundred ports of which eleven are reserved, and no taking over of TIME_WAITs.
pub fn local_ports() -> LocalPorts {
    LocalPorts {
        range: 40_000..=40_099,
        reserved: vec![40_010..=40_019, 40_050..=40_050, 50_000..=50_001],
        tw_reuse: TwReuse::Never,
        timestamps: true,
        tw_reuse_delay: Some(Duration::from_secs(1)),
    }
}

/// A connection from 10.0.0.7 with that local port to 10.0.0.5:5432, which its process left in FIN_WAIT1.
pub fn outgoing(port: u16) -> SocketBuilder {
    socket(State::Established)
        .changes(&[(State::Established, State::FinWait1)])
        .with(|socket| {
            socket.id.sk += u64::from(port) * 64;
            socket.cookie = Some(port.into());
            socket.inode = Some(u64::from(port) + 100_000);
            socket.fds = smallvec![port.into()];
            socket.local = SocketAddr::new([10, 0, 0, 7].into(), port);
            socket.remote = Some(addr("10.0.0.5:5432"));
            socket.reuseaddr = false;
        })
}

pub fn process() -> Process {
    Process {
        pid: 4242,
        ns_pid: Some(7),
        comm: "orderd".into(),
        exe: Some("/usr/bin/orderd".into()),
        cgroup: Some("/system.slice/orderd.service".into()),
        started: Some(at(-7_380_000)),
        target: true,
    }
}

/// Everything seen of process 4242, killed by SIGSEGV, at HZ 250.
pub fn evidence(sockets: Vec<Socket>, sightings: Vec<Sighting>) -> Evidence {
    Evidence {
        time: at(100),
        process: process(),
        death: Some(Death {
            time: at(0),
            cause: Cause::Signal {
                signal: 11,
                core_dumped: false,
            },
            oom: false,
            sent_by: None,
            core_dump: None,
            dump_interrupted: None,
        }),
        sockets: sockets.into_iter().map(Box::new).collect(),
        closed_alive: Vec::new(),
        snapshots: vec![snapshot(sightings)],
        holdings: Vec::new(),
        unreadable: 0,
        io_uring: false,
        blind: Vec::new(),
        lost: Lost::default(),
        hz: 250,
    }
}

/// The report of a server that was killed by SIGSEGV with 203 sockets: 150 idle peers, 50 that closed first, one
/// with unread data, one that is unreachable, and a listener that a child still has. It had closed three
/// connections to a database itself.
pub fn sample() -> Report {
    examine(sample_evidence())
}

/// What [`sample`] is made from.
pub fn sample_evidence() -> Evidence {
    let mut sockets = Vec::new();
    let mut sightings = Vec::new();
    let mut connection = |state: State, changes: &[(State, State)], left: Option<State>| {
        let number = u16::try_from(sockets.len()).expect("few sockets");
        let built = socket(state)
            .changes(changes)
            .with(|socket| {
                socket.id.sk += u64::from(number) * 64;
                socket.cookie = Some(100 + u64::from(number));
                socket.inode = Some(1000 + u64::from(number));
                socket.fds = smallvec![u32::from(number) + 4];
                socket.local = addr("10.0.0.7:8080");
                let host = number % 50 + 1;
                socket.remote = Some(addr(&format!("10.1.2.{host}:{}", 20_000 + number)));
            })
            .build();
        sightings.extend(left.map(|left| sighting(&built, left)));
        sockets.push(built);
    };
    for _ in 0..150 {
        let changes = [
            (State::Established, State::FinWait1),
            (State::FinWait1, State::FinWait2),
            (State::FinWait2, State::Close),
        ];
        connection(State::Established, &changes, Some(State::FinWait2));
    }
    for _ in 0..50 {
        let changes = [(State::CloseWait, State::LastAck), (State::LastAck, State::Close)];
        connection(State::CloseWait, &changes, None);
    }
    connection(State::Established, &[(State::Established, State::Close)], None);
    let closing = [(State::Established, State::FinWait1)];
    connection(State::Established, &closing, Some(State::FinWait1));
    sockets[200].reset_sent = Some(ResetSent {
        reason: Some(ResetReason::AbortOnClose),
    });
    sockets[200].unread_bytes = 5;
    let unreachable = sightings.last_mut().expect("it is there");
    unreachable.timer = Timer::Retransmit;
    unreachable.retransmits = 1;
    unreachable.backoff = 1;
    unreachable.rto = Some(Duration::from_millis(408));
    unreachable.expires = Duration::from_millis(350);
    unreachable.timestamps = Some(true);

    let listener = socket(State::Listen)
        .with(|socket| {
            socket.local = addr("0.0.0.0:8080");
            socket.accept_queue = Some(2);
            // One of them is the child's.
            socket.references = Some(2);
        })
        .build();
    sightings.push(Sighting {
        inode: 70,
        timer: Timer::None,
        expires: Duration::ZERO,
        ..sighting(&listener, State::Listen)
    });
    sockets.push(listener);

    let mut evidence = evidence(sockets, sightings);
    for number in 0..3u16 {
        let closed = socket(State::Established)
            .changes(&[(State::Established, State::FinWait1)])
            .with(|socket| {
                socket.id.origin = Origin::Live;
                socket.id.sk = u64::from(number);
                socket.cookie = Some(900 + u64::from(number));
                socket.local = addr(&format!("10.0.0.7:{}", 40_000 + number));
                socket.remote = Some(addr("10.0.0.5:5432"));
            })
            .build();
        let left = sighting(&closed, State::TimeWait);
        let look = &mut evidence.snapshots[0];
        for list in [&mut look.sightings, &mut look.same_destination] {
            Arc::make_mut(list.get_or_insert_default()).push(left.clone());
        }
        evidence.closed_alive.push(closed.into());
    }
    evidence.snapshots[0].local_ports = Some(LocalPorts {
        range: 32_768..=60_999,
        reserved: Vec::new(),
        ..local_ports()
    });
    evidence.holdings.push(Holding {
        inode: 70,
        pid: 4243,
        comm: "worker\u{1b}[2J".into(),
        fd: 3,
        relation: Relation::Family,
    });
    if let Some(death) = &mut evidence.death {
        death.cause = Cause::Signal {
            signal: 11,
            core_dumped: true,
        };
        death.core_dump = Some(Duration::from_millis(4200));
        death.sent_by = Some(Sender {
            pid: 77,
            comm: "bash".into(),
        });
    }
    evidence.lost.events = 12;
    evidence
}
