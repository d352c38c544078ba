use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::smallvec;

use super::*;
use crate::observed::{
    BlindSpot, Cause, Death, Family, Holding, Linger, Lost, Origin, Overflow, Process, Protocol, Relation,
    ResetReason, ResetReceived, ResetSent, Scope, Sender, Sighting, Socket, SocketId, State, TcpTimeouts,
    Timer, Transition,
};
use crate::observed::{LocalPorts, TwReuse};
use crate::port::{Addressing, Bucket, Device, LocalAddress, PortOwner, Refusal, Reuse, SharedAddress};
use crate::testing::{addr, at, evidence, sighting, socket};
use crate::verdict::examine;

fn header() -> Header {
    Header {
        format: FORMAT,
        sockleak: "0.1.0".into(),
        kernel: "6.12.0".into(),
        boot_id: None,
        time: at(0),
        boottime: 7,
        hz: 250,
        zone: Some("UTC".into()),
        utc_offset: 0,
        command_line: vec!["sockleak".into()],
    }
}

/// A death with a connection that is left and a listener that somebody holds.
fn death() -> Evidence {
    let changes = [
        (State::Established, State::FinWait1),
        (State::FinWait1, State::FinWait2),
        (State::FinWait2, State::Close),
    ];
    let closed: Socket = socket(State::Established).changes(&changes).build();
    let listener = socket(State::Listen)
        .with(|listener| {
            (listener.cookie, listener.inode, listener.references) = (Some(8), Some(80), Some(2));
            listener.fds[0] = 4;
        })
        .build();
    let sightings = vec![
        sighting(&closed, State::FinWait2),
        sighting(&listener, State::Listen),
    ];
    let mut evidence = evidence(vec![closed, listener], sightings);
    evidence.holdings.push(Holding {
        inode: 80,
        pid: 4243,
        comm: "helper".into(),
        fd: 4,
        relation: Relation::Family,
    });
    evidence
}

/// The lines of these observations as text, without header.
fn written(observations: &[Observation]) -> Vec<String> {
    let mut encoder = Encoder::default();
    let mut text = Vec::new();
    for observation in observations {
        for line in encoder.lines(observation) {
            text.push(serde_json::to_string(&line).unwrap());
        }
    }
    text.push(serde_json::to_string(&encoder.end(false)).unwrap());
    text
}

fn read(decoder: &mut Decoder, text: &str) -> Result<Option<Observation>, DecodeError> {
    decoder.take(serde_json::from_str(text).unwrap())
}

fn begun() -> Decoder {
    let mut decoder = Decoder::default();
    assert!(matches!(decoder.take(Line::Recording(header())), Ok(None)));
    decoder
}

#[test]
fn what_was_recorded_is_judged_as_what_was_seen() {
    let seen = death();
    let mut decoder = begun();
    let mut found = Vec::new();
    for line in written(&[Observation::Dead(Box::new(seen.clone()))]) {
        found.extend(read(&mut decoder, &line).unwrap());
    }
    let [Observation::Dead(recorded)] = &found[..] else {
        panic!("{found:?}")
    };
    let (one, other) = (examine(*recorded.clone()), examine(seen));
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    assert!(decoder.is_complete());
}

/// Evidence of which no part is what it would be without being told.
fn full_evidence() -> Evidence {
    Evidence {
        time: at(1),
        process: Process {
            pid: 2,
            ns_pid: Some(3),
            comm: "comm".into(),
            exe: Some("exe".into()),
            cgroup: Some("cgroup".into()),
            started: Some(at(4)),
            target: true,
        },
        death: Some(Death {
            time: at(5),
            cause: Cause::Signal {
                signal: 6,
                core_dumped: true,
            },
            oom: true,
            sent_by: Some(Sender {
                pid: 7,
                comm: "sender".into(),
            }),
            core_dump: Some(Duration::from_millis(8)),
            dump_interrupted: Some(9),
        }),
        sockets: vec![Box::new(Socket {
            subflows: vec![full_socket()],
            ..full_socket()
        })],
        closed_alive: vec![Box::new(full_socket())],
        snapshots: vec![full_snapshot()],
        holdings: vec![Holding {
            inode: 10,
            pid: 11,
            comm: "holder".into(),
            fd: 12,
            relation: Relation::Received,
        }],
        unreadable: 13,
        io_uring: true,
        blind: vec![BlindSpot::SubflowsSkipped { sockets: 14 }],
        lost: Lost {
            events: 15,
            inventory: 16,
            slots: 17,
        },
        hz: 18,
    }
}

fn full_socket() -> Socket {
    Socket {
        id: SocketId {
            sk: u64::MAX,
            since: 19,
            tgid: 20,
            origin: Origin::Live,
        },
        protocol: Protocol::Mptcp,
        family: Family::Ipv6,
        local: addr("[::1]:21"),
        remote: Some(addr("[::ffff:127.0.0.1]:22")),
        netns: 23,
        cookie: Some(24),
        fds: smallvec![25],
        inode: Some(26),
        subflows: Vec::new(),
        subflows_complete: true,
        references: Some(27),
        state_at_death: State::CloseWait,
        shutdown: true,
        unread_bytes: 28,
        unacked_bytes: 29,
        accept_queue: Some(30),
        reuseaddr: true,
        reuseport: true,
        v6only: Some(true),
        linger: Some(Linger { seconds: 31 }),
        linger2_negative: true,
        repair: true,
        reset_before: true,
        uid: Some(32),
        device: 34,
        nonlocal: true,
        transitions: smallvec![Transition::new(at(33), State::CloseWait, State::LastAck)],
        transitions_truncated: true,
        reset_sent: Some(ResetSent {
            reason: Some(ResetReason::AbortOnData),
        }),
        reset_received: Some(ResetReceived {
            state: State::LastAck,
        }),
    }
}

fn full_sighting(local: SocketAddr) -> Sighting {
    Sighting {
        protocol: Protocol::Mptcp,
        state: State::BoundInactive,
        local,
        remote: addr("127.0.0.1:34"),
        cookie: 35,
        inode: 36,
        timer: Timer::Unknown(37),
        expires: Duration::from_nanos(38),
        retransmits: 39,
        rto: Some(Duration::from_secs(40)),
        backoff: 41,
        send_queue: 42,
        last_ack: Some(Duration::from_millis(43)),
        timestamps: Some(true),
        interface: 44,
        is_subflow: true,
    }
}

fn full_snapshot() -> Snapshot {
    let owner = PortOwner {
        sk: 45,
        netns: 46,
        protocol: Protocol::Mptcp,
        family: Family::Ipv6,
        local: addr("[::1]:47"),
        remote: Some(addr("[::1]:48")),
        state: State::Closing,
        mini: true,
        reuse: Some(Reuse::new(true, true)),
        v6only: Some(true),
        device: 49,
        uid: Some(50),
        cookie: Some(51),
        inode: 52,
        bucket: Some(Bucket {
            reuse_addr: true,
            reuse_port: true,
            reuse_port_at: Some(SharedAddress {
                address: addr("[::1]:1").ip(),
                v6only: true,
            }),
            uid: 53,
            vrf: 60,
        }),
    };
    let tried = LocalAddress {
        address: addr("[fe80::1]:1").ip(),
        v6only: true,
        device: 61,
    };
    Snapshot {
        netns: 54,
        addressing: Addressing {
            refusals: vec![(tried, Refusal::NotAvailable)],
            devices: vec![Device {
                index: 61,
                name: "vrf-red".to_owned(),
                vrf: 62,
            }],
        },
        cookie: Some(55),
        scope: Some(Scope {
            ports: [71, 72].into(),
            kinds: [(Protocol::Tcp, Family::Ipv6)].into(),
        }),
        began: at(56),
        time: at(57),
        sightings: Some(Arc::new(vec![full_sighting(addr("127.0.0.1:58"))])),
        refused: Some("refused".into()),
        orphan_retries: Some(59),
        tcp_timeouts: Some(TcpTimeouts {
            fin_timeout: Duration::from_secs(73),
            retries2: 74,
            rto_max: Duration::from_secs(75),
        }),
        overflow: Some(Overflow {
            count: 60,
            is_full: true,
        }),
        owners: Some(vec![Arc::new(owner)]),
        shows_bound: true,
        local_ports: Some(LocalPorts {
            range: 61..=62,
            reserved: vec![63..=64],
            tw_reuse: TwReuse::Loopback,
            timestamps: true,
            tw_reuse_delay: Some(Duration::from_secs(65)),
        }),
        same_destination: Some(Arc::new(vec![full_sighting(addr("127.0.0.1:66"))])),
    }
}

#[test]
fn nothing_is_lost_on_the_way() {
    let seen = [
        Observation::Dead(Box::new(full_evidence())),
        Observation::Looked(Box::new(full_snapshot())),
    ];
    let mut decoder = begun();
    let lines = written(&seen);
    let read = lines.iter().filter_map(|line| read(&mut decoder, line).unwrap());
    assert_eq!(format!("{:#?}", read.collect::<Vec<_>>()), format!("{seen:#?}"));
}

#[test]
fn a_look_that_several_deaths_share_is_written_once() {
    let second = Evidence {
        process: Process::unknown(7),
        ..death()
    };
    let mut later = death();
    later.snapshots[0].time = at(5_000);
    let text = written(&[
        Observation::Dead(Box::new(death())),
        Observation::Dead(Box::new(second)),
        Observation::Living(Box::new(later)),
    ]);
    let looks = text.iter().filter(|line| line.starts_with(r#"{"snapshot""#));
    assert_eq!(looks.count(), 2);
    let mut decoder = begun();
    let found: Vec<_> = text
        .iter()
        .filter_map(|line| read(&mut decoder, line).unwrap())
        .collect();
    assert_eq!(found.len(), 3);
}

#[test]
fn a_look_is_written_once_for_deaths_of_several_namespaces() {
    let inside = || {
        let mut inside = death();
        inside.snapshots[0].netns += 1;
        Observation::Dead(Box::new(inside))
    };
    let outside = || Observation::Dead(Box::new(death()));
    let text = written(&[outside(), inside(), outside(), inside()]);
    let looks = text.iter().filter(|line| line.starts_with(r#"{"snapshot""#));
    assert_eq!(looks.count(), 2);
}

#[test]
fn a_cut_recording_is_known() {
    let lost = Observation::Lost(Loss {
        time: at(0),
        events: 1,
        processes: 0,
    });
    let text = written(&[lost]);
    let mut decoder = begun();
    assert!(read(&mut decoder, &text[0]).unwrap().is_some());
    assert!(!decoder.is_complete(), "there is no end mark");
    assert_eq!(
        read(&mut begun(), &text[1]).unwrap_err(),
        DecodeError::Count { told: 1, found: 0 }
    );
    let mut encoder = Encoder::default();
    let observation = Observation::Ended { time: at(0) };
    let _ = encoder.lines(&observation);
    let mut decoder = begun();
    decoder.take(encoder.end(true)).unwrap();
    assert!(
        !decoder.is_complete(),
        "the end mark says that something is missing"
    );
    assert_eq!(read(&mut decoder, &text[0]).unwrap_err(), DecodeError::AfterEnd);
}

#[test]
fn lines_that_cannot_be_there_are_refused() {
    let text = written(&[Observation::Dead(Box::new(death()))]);
    assert_eq!(
        read(&mut Decoder::default(), &text[0]).unwrap_err(),
        DecodeError::NoHeader
    );
    assert_eq!(read(&mut begun(), &text[1]).unwrap_err(), DecodeError::NoSnapshot);
    let mut twice = death();
    twice.snapshots.push(twice.snapshots[0].clone());
    twice.snapshots[1].time = at(5_000);
    let twice = written(&[Observation::Dead(Box::new(twice))]);
    let mut decoder = begun();
    let refused = twice.iter().find_map(|line| read(&mut decoder, line).err());
    assert_eq!(refused, Some(DecodeError::SecondSnapshot));
    assert_eq!(
        begun().take(Line::Recording(header())).unwrap_err(),
        DecodeError::SecondHeader
    );
    let later = Header {
        format: FORMAT + 1,
        ..header()
    };
    let refused = DecodeError::Format {
        format: FORMAT + 1,
        sockleak: "0.1.0".into(),
    };
    assert_eq!(
        Decoder::default().take(Line::Recording(later)).unwrap_err(),
        refused
    );
}
