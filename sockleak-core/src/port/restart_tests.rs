use super::*;
use crate::expiry::{EarlierBy, FreeRule};
use crate::observed::{Evidence, Family, Holding, Protocol, Relation, Sighting, Socket, State, Timer};
use crate::port::{Bucket, PortOwner};
use crate::testing::{addr, at, evidence, sighting, socket};
use crate::verdict::examine;

const PLAIN: Reuse = Reuse::new(false, false);
const ADDR: Reuse = Reuse::new(true, false);

/// A dead listener at 0.0.0.0:8080 and a connection of it, which is FIN_WAIT2 now.
fn crash(reuseaddr: bool) -> Evidence {
    let listener = socket(State::Listen)
        .changes(&[(State::Listen, State::Close)])
        .with(|socket| {
            socket.id.sk = 1;
            socket.local = addr("0.0.0.0:8080");
            socket.remote = None;
            socket.cookie = Some(1);
            socket.reuseaddr = reuseaddr;
        })
        .build();
    let connection = socket(State::Established)
        .changes(&[(State::Established, State::FinWait1)])
        .with(|socket| {
            socket.id.sk = 2;
            socket.local = addr("127.0.0.1:8080");
            socket.cookie = Some(2);
            socket.reuseaddr = reuseaddr;
        })
        .build();
    let left = sighting(&connection, State::FinWait2);
    evidence(vec![listener, connection], vec![left])
}

fn only(report: &crate::verdict::Report) -> &Restart {
    let [restart] = report.restart.as_slice() else {
        panic!("{:?}", report.restart);
    };
    restart
}

#[test]
fn a_restart_waits_for_the_last_leftover() {
    let report = examine(crash(false));
    let restart = only(&report);
    assert_eq!(restart.endpoint.address, addr("0.0.0.0:8080").ip());
    for verdict in &restart.verdicts {
        assert_eq!(verdict.answer(), Answer::InUse);
        assert_eq!(verdict.obstacles(), BTreeMap::from([(Obstacle::FinWait2, 1)]));
        assert_eq!(verdict.free_at, report.sockets[1].freedom.at());
        assert_eq!(verdict.free_at_latest, report.sockets[1].freedom.latest());
        assert!(verdict.free_at.is_some());
        assert_eq!(verdict.earlier_by, Some(EarlierBy::Rst));
    }
}

#[test]
fn the_option_must_have_been_set_before_the_crash() {
    let report = examine(crash(true));
    let answers: Vec<Answer> = only(&report)
        .verdicts
        .iter()
        .map(|verdict| verdict.answer())
        .collect();
    assert_eq!(answers, [Answer::InUse, Answer::Ok, Answer::InUse, Answer::Ok]);
    assert_eq!(only(&report).verdicts[1].free_at, None);
}

/// The options of what the dead process did not have are told by nobody but the namespace's own list.
#[test]
fn a_stranger_at_the_port_is_known_from_the_list_alone() {
    let mut stranger = crash(true);
    let mut seen = stranger.snapshots[0].seen().to_vec().remove(0);
    seen.cookie = 99;
    seen.state = State::TimeWait;
    let owner = PortOwner {
        sk: 3,
        netns: 1,
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
        local: seen.local,
        remote: Some(seen.remote),
        state: State::TimeWait,
        mini: true,
        reuse: Some(PLAIN),
        v6only: None,
        device: 0,
        uid: None,
        cookie: Some(99),
        inode: 0,
        bucket: None::<Bucket>,
    };
    let expires = seen.expires;
    stranger.snapshots[0].seen_mut().push(seen);
    let told = |evidence: &Evidence| {
        let report = examine(evidence.clone());
        let verdict = only(&report).verdict(ADDR).unwrap().clone();
        (verdict.answer(), verdict.free_at)
    };
    let free_at = at(100).checked_add(expires).ok();
    assert_eq!(told(&stranger), (Answer::Unknown, free_at));
    stranger.snapshots[0].owners = Some(vec![owner.into()]);
    assert_eq!(told(&stranger), (Answer::InUse, free_at));
}

#[test]
fn one_without_an_end_takes_the_moment_from_all() {
    let mut probing = crash(false);
    let seen = &mut probing.snapshots[0].seen_mut();
    let mut orphan = seen[0].clone();
    orphan.cookie = 99;
    orphan.state = State::FinWait1;
    orphan.timer = Timer::None;
    seen.push(orphan);
    let report = examine(probing);
    let verdict = only(&report).verdict(PLAIN).unwrap();
    assert_eq!((verdict.answer(), verdict.free_at), (Answer::InUse, None));
    assert_eq!(
        verdict.obstacles(),
        BTreeMap::from([(Obstacle::FinWait2, 1), (Obstacle::FinWait1, 1)])
    );
}

#[test]
fn who_has_a_descriptor_is_told_as_a_holder() {
    let mut held = crash(false);
    held.snapshots[0].seen_mut()[0].inode = 70;
    held.sockets[1].inode = Some(70);
    let report = examine(held);
    assert_eq!(report.sockets[1].freedom.rule, FreeRule::Holder);
    let verdict = only(&report).verdict(PLAIN).unwrap();
    assert_eq!(verdict.obstacles(), BTreeMap::from([(Obstacle::Connection, 1)]));
    assert_eq!(verdict.free_at, None);
}

/// Each socket counts once, however many processes have it, and one process is named for all that it has.
#[test]
fn what_is_in_the_way_is_told_by_kind_state_and_process() {
    let mut held = crash(false);
    let connection = held.sockets[1].clone();
    for number in 3..=5 {
        let mut other = connection.clone();
        other.id.sk = number;
        other.cookie = Some(number);
        other.remote = Some(addr(&format!("127.0.0.1:{}", 40_310 + number)));
        let mut seen = sighting(&other, State::Established);
        seen.inode = 70 + number;
        if number == 5 {
            seen.state = State::CloseWait;
        }
        other.inode = Some(seen.inode);
        held.snapshots[0].seen_mut().push(seen);
        held.sockets.push(other);
    }
    let holding = |inode: u64, pid: u32, fd: u32| Holding {
        inode,
        pid,
        comm: format!("of {pid}"),
        fd,
        relation: Relation::Unknown,
    };
    held.holdings = vec![
        holding(73, 4244, 9),
        holding(73, 4243, 6),
        holding(74, 4243, 7),
        holding(75, 4243, 8),
    ];
    let report = examine(held);
    let blocked_by = &only(&report).verdict(PLAIN).unwrap().blocked_by;
    let told: Vec<_> = blocked_by
        .iter()
        .map(|blocker| {
            let holder = blocker.holder.as_ref();
            let holder = holder.map(|holder| (holder.pid, holder.comm.as_str(), holder.fd));
            (blocker.kind, blocker.state, blocker.count, holder)
        })
        .collect();
    let holder = |fd| Some((4243, "of 4243", fd));
    assert_eq!(
        told,
        [
            (Obstacle::Connection, State::Established, 2, holder(None)),
            (Obstacle::Connection, State::CloseWait, 1, holder(Some(8))),
            (Obstacle::FinWait2, State::FinWait2, 1, None),
        ]
    );
}

/// Before 6.8 sock_diag does not list it, so that nothing gave it a cookie.
#[test]
fn who_has_a_bound_socket_without_a_cookie_is_told() {
    let bound = socket(State::Close).with(|bound| {
        bound.local = addr("0.0.0.0:8080");
        bound.remote = None;
        bound.cookie = None;
        bound.inode = Some(771);
    });
    let mut held = evidence(vec![bound.build()], Vec::new());
    held.holdings.push(Holding {
        inode: 771,
        pid: 4243,
        comm: "worker".into(),
        fd: 5,
        relation: Relation::Unknown,
    });
    let report = examine(held);
    let blocked_by = &only(&report).verdict(PLAIN).unwrap().blocked_by;
    let told = blocked_by
        .iter()
        .map(|blocker| (blocker.kind, blocker.holder.as_ref().map(|holder| holder.pid)));
    assert_eq!(told.collect::<Vec<_>>(), [(Obstacle::Bound, Some(4243))]);
}

/// The port is that of a subflow, and the descriptor that of the MPTCP socket.
#[test]
fn who_has_an_mptcp_socket_has_the_port_of_its_subflows() {
    let mut held = crash(false);
    let subflow = held.sockets[1].clone();
    let connection = &mut held.sockets[1];
    connection.protocol = Protocol::Mptcp;
    connection.id.sk = 22;
    connection.cookie = Some(22);
    connection.inode = Some(722);
    connection.subflows = vec![Socket {
        inode: None,
        ..*subflow
    }];
    let seen = &mut held.snapshots[0].seen_mut()[0];
    seen.state = State::Established;
    let mptcp = Sighting {
        protocol: Protocol::Mptcp,
        cookie: 22,
        inode: 722,
        ..seen.clone()
    };
    held.snapshots[0].seen_mut().push(mptcp);
    held.holdings.push(Holding {
        inode: 722,
        pid: 4243,
        comm: "worker".into(),
        fd: 5,
        relation: Relation::Unknown,
    });
    let report = examine(held);
    let [blocker] = &only(&report).verdict(PLAIN).unwrap().blocked_by[..] else {
        panic!("{:?}", report.restart);
    };
    let holder = blocker.holder.as_ref().map(|holder| (holder.pid, holder.fd));
    assert_eq!(
        (blocker.state, holder),
        (State::Established, Some((4243, Some(5))))
    );
}

#[test]
fn connections_alone_ask_for_no_restart() {
    let mut client = crash(false);
    client.sockets.remove(0);
    assert!(examine(client).restart.is_empty());
    let mut gone = crash(false);
    gone.snapshots[0].sightings = None;
    assert!(examine(gone).restart.is_empty());
}
