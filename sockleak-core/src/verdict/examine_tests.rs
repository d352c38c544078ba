//! Whole reports.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::expiry::{EarlierBy, FreeRule, LastFree};
use crate::leftover::leftovers;
use crate::observed::{BlindSpot, Origin, Sighting, SocketId, Timer};
use crate::observed::{Holding, Overflow, Relation};
use crate::port::{Answer, Obstacle};
use crate::testing::{addr, at, evidence, sighting, socket};
use crate::verdict::{How, has_settled};

/// Connection number `number` of 127.0.0.1:8080, as the process held it.
fn connection(number: u16) -> Socket {
    socket(State::Established)
        .changes(&[
            (State::Established, State::FinWait1),
            (State::FinWait1, State::FinWait2),
            (State::FinWait2, State::Close),
        ])
        .with(|socket| {
            socket.id.sk += u64::from(number) * 64;
            socket.cookie = Some(100 + u64::from(number));
            socket.inode = Some(1000 + u64::from(number));
            socket.fds = smallvec::smallvec![u32::from(number) + 4];
            socket.remote = Some(addr(&format!("127.0.0.1:{}", 20_000 + number)));
        })
        .build()
}

fn live(number: u16) -> Socket {
    let mut socket = connection(number);
    socket.id.origin = Origin::Live;
    socket
}

fn held_listener() -> (Socket, Sighting) {
    let listener = socket(State::Listen)
        .with(|socket| socket.references = Some(2))
        .build();
    let seen = Sighting {
        inode: 70,
        timer: Timer::None,
        expires: Duration::ZERO,
        ..sighting(&listener, State::Listen)
    };
    (listener, seen)
}

fn child_holds(inode: u64) -> Holding {
    Holding {
        inode,
        pid: 4243,
        comm: "worker".into(),
        fd: 3,
        relation: Relation::Family,
    }
}

#[test]
fn a_file_without_further_references_is_in_a_shared_table() {
    let how = |references, fd, relation| {
        let (mut listener, seen) = held_listener();
        listener.references = references;
        let mut evidence = evidence(vec![listener], vec![seen]);
        evidence.holdings.push(Holding {
            fd,
            relation,
            ..child_holds(70)
        });
        let report = examine(evidence);
        report.sockets[0].holders[0].how
    };
    for relation in [Relation::Family, Relation::Unknown, Relation::SharedTable] {
        assert_eq!(how(Some(1), 3, relation), Some(How::SharedTable), "{relation:?}");
    }
    assert_eq!(how(Some(2), 3, Relation::Family), Some(How::Inherited));
    assert_eq!(how(None, 3, Relation::Unknown), None, "the kernel does not tell");
    assert_eq!(
        how(Some(1), 9, Relation::Unknown),
        None,
        "it was passed after the death"
    );
}

#[test]
fn a_crash_with_a_child_that_keeps_the_listener() {
    let (listener, seen) = held_listener();
    let connections: Vec<Socket> = (0..20).map(connection).collect();
    let mut sightings: Vec<Sighting> = connections
        .iter()
        .map(|socket| sighting(socket, State::FinWait2))
        .collect();
    sightings.push(seen);
    // The peers' ends of the same connections.
    sightings.extend(connections.iter().map(|socket| Sighting {
        local: socket.remote.expect("it is connected"),
        remote: socket.local,
        cookie: socket.cookie.expect("it has one") + 5000,
        inode: socket.inode.expect("it has one") + 5000,
        ..sighting(socket, State::CloseWait)
    }));
    let mut sockets = connections;
    sockets.push(listener);
    let mut evidence = evidence(sockets, sightings);
    evidence.holdings.push(child_holds(70));
    let report = examine(evidence);

    assert_eq!(report.summary.fin_wait2, 20);
    assert_eq!(report.summary.held, 1);
    assert_eq!(report.summary.total(), 21);
    let held = &report.sockets[0];
    assert_eq!((held.outcome, held.why), (Outcome::Held, Why::Inherited));
    assert_eq!(held.holders[0].pid, 4243);
    assert_eq!(held.freedom, Freedom::open(FreeRule::Holder));
    assert_eq!(report.sockets[1].freedom.at(), Some(at(100 + 59_700)));
    assert_eq!(leftovers(&report).count(), 21);
    assert!(report.left_something());
}

#[test]
fn a_shut_down_socket_is_counted_once() {
    let mut inventory = connection(1);
    inventory.state_at_death = State::FinWait2;
    let mut earlier = live(1);
    earlier.id = SocketId {
        since: 0,
        ..earlier.id
    };
    let mut evidence = evidence(
        vec![inventory.clone()],
        vec![sighting(&inventory, State::FinWait2)],
    );
    evidence.closed_alive.push(earlier.into());
    let report = examine(evidence);
    assert_eq!(report.summary.fin_wait2, 1);
    assert!(report.left_while_alive.is_empty());
}

#[test]
fn what_it_closed_itself_is_grouped_by_the_port_people_know() {
    let mut closed: Vec<Socket> = (0..10).map(live).collect();
    for number in 10..15 {
        let mut client = live(number);
        client.local = addr(&format!("10.0.0.7:{}", 40_000 + number));
        client.remote = Some(addr("10.0.0.5:5432"));
        closed.push(client);
    }
    let mut sightings: Vec<Sighting> = closed
        .iter()
        .map(|socket| sighting(socket, State::TimeWait))
        .collect();
    // One of them is gone already, and one waits longer.
    sightings.remove(0);
    sightings[5].expires = Duration::from_millis(59_900);
    let mut evidence = evidence(Vec::new(), sightings);
    evidence.closed_alive = closed.into_iter().map(Box::new).collect();
    let report = examine(evidence);

    assert_eq!(report.summary, Summary::default());
    let [server, client] = &report.left_while_alive[..] else {
        panic!("two groups, not {:?}", report.left_while_alive);
    };
    assert_eq!((server.count, server.lport, server.rport), (9, Some(8080), None));
    assert_eq!(server.last_free.at, Some(at(60_000)));
    assert_eq!(server.last_closed, at(1));
    assert_eq!((client.count, client.lport, client.rport), (5, None, Some(5432)));
    assert_eq!(report.closed_alive.len(), 14);
}

#[test]
fn a_group_with_an_open_end_promises_nothing() {
    let closed: Vec<Socket> = (0..3).map(live).collect();
    let mut sightings: Vec<Sighting> = closed
        .iter()
        .map(|socket| Sighting {
            timer: Timer::Retransmit,
            rto: Some(Duration::from_millis(200)),
            ..sighting(socket, State::FinWait1)
        })
        .collect();
    sightings[1].timer = Timer::None;
    let mut evidence = evidence(Vec::new(), sightings);
    evidence.closed_alive = closed.into_iter().map(Box::new).collect();
    let report = examine(evidence);
    assert_eq!(report.left_while_alive.len(), 1);
    assert_eq!(report.left_while_alive[0].last_free, LastFree::default());
}

#[test]
fn a_group_is_free_with_the_last_of_it() {
    let closed: Vec<Socket> = (0..2).map(live).collect();
    let mut sightings: Vec<Sighting> = closed
        .iter()
        .map(|socket| sighting(socket, State::FinWait2))
        .collect();
    sightings[0].expires = Duration::from_secs(40);
    let mut evidence = evidence(Vec::new(), sightings);
    evidence.closed_alive = closed.into_iter().map(Box::new).collect();
    let expected = LastFree {
        at: Some(at(100 + 59_700)),
        latest: Some(at(100 + 59_700 + 2048 + 62_048)),
        earlier_by: Some(EarlierBy::Rst),
    };
    assert_eq!(examine(evidence).left_while_alive[0].last_free, expected);
}

#[test]
fn a_holder_that_cannot_be_asked_is_a_blind_spot() {
    let (listener, seen) = held_listener();
    let mut evidence = evidence(vec![listener], vec![seen]);
    let report = examine(evidence.clone());
    assert_eq!(report.sockets[0].why, Why::InKernel);
    assert!(report.blind.is_empty() && !has_settled(&evidence, |_| false));
    evidence.unreadable = 1;
    let report = examine(evidence.clone());
    assert_eq!(report.sockets[0].why, Why::Unknown);
    assert_eq!(report.blind.len(), 1);
    evidence.holdings.push(child_holds(70));
    assert!(has_settled(&evidence, |_| false));
    assert!(!has_settled(&evidence, |pid| pid == child_holds(70).pid));
    let report = examine(evidence);
    assert_eq!(report.sockets[0].why, Why::Inherited);
    assert!(report.blind.is_empty());
}

#[test]
fn what_may_not_be_looked_into_is_unknown_and_may_be_there() {
    let listener = socket(State::Listen)
        .changes(&[(State::Listen, State::Close)])
        .with(|socket| socket.id.sk = 1)
        .build();
    let mut evidence = evidence(vec![connection(1), listener], Vec::new());
    let peer_closed = socket(State::CloseWait)
        .changes(&[(State::CloseWait, State::LastAck), (State::LastAck, State::Close)])
        .with(|socket| socket.id.sk = 2)
        .build();
    evidence.closed_alive = vec![live(2).into(), live(3).into(), peer_closed.into()];
    evidence.snapshots[0].sightings = None;
    evidence.snapshots[0].refused = Some("it needs CAP_SYS_ADMIN".to_owned());
    let report = examine(evidence.clone());
    assert_eq!((report.summary.unknown, report.summary.closed), (1, 1));
    let connection = &report.sockets[1];
    assert_eq!(connection.freedom, Freedom::open(FreeRule::Unknown));
    assert_eq!(connection.why, Why::NetnsUnreachable);
    let [left] = report.left_while_alive.as_slice() else {
        panic!("{:?}", report.left_while_alive);
    };
    assert_eq!(
        (left.outcome, left.count, left.last_free.at),
        (Outcome::Unknown, 2, None)
    );
    let answers = report.restart[0].verdicts.iter().map(|verdict| verdict.answer());
    assert_eq!(answers.collect::<Vec<_>>(), [Answer::Unknown; 4]);
    let [BlindSpot::NetnsRefused { netns: 1, why }] = &report.blind[..] else {
        panic!("{:?}", report.blind)
    };
    assert!(why.contains("CAP_SYS_ADMIN"), "{why}");

    // What /proc shows is in the way all the same.
    evidence.sockets[1].transitions.clear();
    evidence.holdings.push(child_holds(70));
    let report = examine(evidence);
    let plain = &report.restart[0].verdicts[0];
    assert_eq!(plain.answer(), Answer::InUse);
    assert_eq!(
        plain.obstacles().keys().collect::<Vec<_>>(),
        [&Obstacle::Listener]
    );
}

#[test]
fn a_namespace_that_is_gone_is_a_blind_spot() {
    let mut evidence = evidence(vec![connection(1)], Vec::new());
    evidence.snapshots[0].sightings = None;
    evidence.io_uring = true;
    let report = examine(evidence);
    assert_eq!(report.sockets[0].freedom, Freedom::open(FreeRule::NetnsGone));
    assert_eq!(report.sockets[0].why, Why::NetnsUnreachable);
    assert_eq!(
        report.blind,
        [BlindSpot::IoUring, BlindSpot::NetnsGone { netns: 1 }]
    );
}

#[test]
fn a_hundred_thousand_sockets_take_no_time() {
    let sockets: Vec<Socket> = (0..100_000u32)
        .map(|number| {
            let mut socket = connection((number % 40_000) as u16);
            socket.id.sk = u64::from(number);
            socket.cookie = (number % 2 == 0).then_some(u64::from(number) + 1_000_000);
            socket.inode = Some(u64::from(number) + 2_000_000);
            socket.local.set_ip([10, 0, (number / 40_000) as u8, 1].into());
            socket
        })
        .collect();
    let sightings = sockets
        .iter()
        .enumerate()
        .map(|(number, socket)| Sighting {
            cookie: number as u64 + 1_000_000,
            ..sighting(socket, State::TimeWait)
        })
        .collect();
    let began = Instant::now();
    let report = examine(evidence(sockets, sightings));
    assert_eq!(report.summary.time_wait, 100_000);
    // Quadratic work would take hours; the bound leaves room for a busy machine without optimization.
    assert!(began.elapsed() < Duration::from_secs(20));
}

proptest! {
    /// Every socket is counted once, and every moment lies where it belongs.
    #[test]
    fn nothing_is_missing_and_no_moment_is_in_the_past(
        seen in prop::collection::vec((any::<bool>(), prop::sample::select(State::ALL.to_vec()), 0u64..3, 0u64..100_000), 0..40),
    ) {
        let sockets: Vec<Socket> = (0..seen.len()).map(|number| connection(number as u16)).collect();
        let sightings = sockets.iter().zip(&seen).filter(|(_, seen)| seen.0).map(|(socket, &(_, state, inode, expires))| Sighting {
            inode: if inode == 0 { 0 } else { socket.inode.expect("it has one") },
            expires: Duration::from_millis(expires),
            ..sighting(socket, state)
        }).collect();
        let count = sockets.len();
        let report = examine(evidence(sockets, sightings));
        prop_assert_eq!(report.summary.total(), count as u64);
        prop_assert_eq!(report.sockets.len(), count);
        for socket in &report.sockets {
            prop_assert!(socket.freedom.at().is_none_or(|at| at >= report.time));
            prop_assert!(socket.freedom.latest() >= socket.freedom.at());
        }
    }
}

/// Five connections, of which two have their TIME_WAIT; and what is said of the others.
fn missing_time_waits(overflow: Option<Overflow>) -> (Vec<Why>, usize) {
    let sockets: Vec<_> = (0..5).map(connection).collect();
    let there = sockets[..2]
        .iter()
        .map(|socket| sighting(socket, State::TimeWait));
    let mut evidence = evidence(sockets.clone(), there.collect());
    evidence.snapshots[0].overflow = overflow;
    let report = examine(evidence);
    let gone = report
        .sockets
        .iter()
        .filter(|socket| socket.outcome == Outcome::Closed);
    (gone.map(|socket| socket.why).collect(), report.blind.len())
}

#[test]
fn a_full_table_explains_missing_time_waits() {
    let overflow = |count, is_full| Some(Overflow { count, is_full });
    let all = (vec![Why::TimeWaitOverflow; 3], 0);
    assert_eq!(missing_time_waits(overflow(3, true)), all);
    assert_eq!(missing_time_waits(overflow(90, true)), all);
    // Some of them, or none: which ones is not known, and the report says so.
    let doubt = (vec![Why::Unknown; 3], 1);
    assert_eq!(missing_time_waits(overflow(2, true)), doubt);
    assert_eq!(missing_time_waits(overflow(90, false)), doubt);
    let nothing = (vec![Why::Unknown; 3], 0);
    assert_eq!(missing_time_waits(overflow(0, true)), nothing);
    assert_eq!(missing_time_waits(None), nothing);
}

/// A report can be made in one thread and written in another.
#[test]
fn evidence_and_reports_go_to_other_threads() {
    fn is_send<T: Send>() {}
    is_send::<Evidence>();
    is_send::<Report>();
}
