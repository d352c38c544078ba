use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::observed::Family;
use crate::port::{BlockingProcess, Obstacle};
use crate::testing::{addr, at, sighting, snapshot, socket};

fn owner(sk: u64, state: State, local: &str, remote: Option<&str>) -> PortOwner {
    PortOwner {
        sk,
        netns: 1,
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
        local: addr(local),
        remote: remote.map(addr),
        state,
        mini: state == State::TimeWait,
        reuse: Some(Reuse::default()),
        v6only: None,
        device: 0,
        uid: None,
        cookie: Some(sk),
        inode: if state == State::TimeWait { 0 } else { 1000 + sk },
        bucket: None,
    }
}

fn file(pid: u32, fd: u32, owner: &PortOwner) -> PortFile {
    PortFile {
        pid,
        comm: format!("of {pid}"),
        fd,
        owner: owner.clone(),
    }
}

/// A listener, and a TIME_WAIT that ends after 59.7 s.
fn evidence() -> PortEvidence {
    let time_wait = owner(2, State::TimeWait, "127.0.0.1:8080", Some("127.0.0.1:40310"));
    let mut seen = sighting(&socket(State::Established).build(), State::TimeWait);
    seen.cookie = 2;
    (seen.local, seen.remote) = (time_wait.local, addr("127.0.0.1:40310"));
    let mut look = snapshot(vec![seen]);
    look.owners = Some(vec![
        owner(1, State::Listen, "0.0.0.0:8080", None).into(),
        time_wait.into(),
    ]);
    let wildcard: SocketAddr = addr("0.0.0.0:8080");
    PortEvidence {
        time: at(100),
        port: 8080,
        own: 1,
        addresses: vec![Endpoint {
            netns: 1,
            address: wildcard.ip(),
            port: 8080,
            v6only: None,
            uid: None,
            device: 0,
            nonlocal: false,
        }],
        looks: vec![look],
        files: Vec::new(),
        parents: HashMap::new(),
        dumping: HashSet::new(),
        forbidden: HashSet::new(),
        blind: Vec::new(),
        hz: 250,
    }
}

#[test]
fn a_child_has_what_its_parent_has() {
    let mut evidence = evidence();
    let listener = owner(1, State::Listen, "0.0.0.0:8080", None);
    evidence.files = vec![
        file(12, 3, &listener),
        file(10, 3, &listener),
        file(13, 4, &listener),
    ];
    evidence.parents = HashMap::from([(12, 11), (11, 10), (13, 10), (10, 1), (1, 0)]);
    evidence.dumping = HashSet::from([10]);
    let report = PortReport::examine(evidence);
    let told: Vec<_> = report.sockets[0]
        .holders
        .iter()
        .map(|holder| (holder.pid, holder.fd, holder.how, holder.dumping_core))
        .collect();
    assert_eq!(
        told,
        [
            (10, 3, None, true),
            (12, 3, Some(How::Inherited), false),
            (13, 4, None, false)
        ]
    );
    assert!(report.sockets[1].holders.is_empty());
    let told: Vec<_> = report.restart[0].verdicts[0]
        .blocked_by
        .iter()
        .map(|blocker| (blocker.kind, blocker.count, blocker.holder.as_ref()))
        .collect();
    let parent = BlockingProcess {
        pid: 10,
        comm: "of 10".into(),
        fd: Some(3),
    };
    assert_eq!(
        told,
        [
            (Obstacle::Listener, 1, Some(&parent)),
            (Obstacle::TimeWait, 1, None)
        ]
    );
}

#[test]
fn it_is_free_when_the_last_one_is() {
    let mut evidence = evidence();
    let both = PortReport::examine(evidence.clone());
    assert!(!both.is_free(Reuse::default()));
    assert_eq!(both.free_at(Reuse::default()), None);
    evidence.looks[0].owners.as_mut().unwrap().remove(0);
    let one = PortReport::examine(evidence.clone());
    assert!(!one.is_free(Reuse::default()));
    assert_eq!(one.free_at(Reuse::default()), Some(at(100 + 59_700)));
    evidence.looks[0].owners.as_mut().unwrap().clear();
    let none = PortReport::examine(evidence);
    assert!(none.is_free(Reuse::default()));
    assert_eq!(none.free_at(Reuse::default()), None);
}

/// No table of the kernel has a socket that is only bound: its descriptor alone leads to it.
#[test]
fn what_is_only_bound_is_known_by_its_descriptor() {
    let mut evidence = evidence();
    evidence.looks[0].owners.as_mut().unwrap().clear();
    let bound = owner(9, State::Close, "0.0.0.0:8080", None);
    evidence.files = vec![file(5, 3, &bound), file(5, 4, &bound)];
    let report = PortReport::examine(evidence);
    assert_eq!(report.sockets.len(), 1);
    assert_eq!(report.sockets[0].holders.len(), 2);
    let verdict = report.restart[0].verdict(Reuse::default()).unwrap();
    assert_eq!(verdict.obstacles().keys().collect::<Vec<_>>(), [&Obstacle::Bound]);
}

/// Its descriptor may be one of a process that has no number here, and sock_diag lists it since 6.8.
#[test]
fn what_is_only_bound_is_known_by_sock_diag() {
    let mut evidence = evidence();
    let mut seen = sighting(&socket(State::Listen).build(), State::BoundInactive);
    (seen.local, seen.cookie, seen.inode) = (addr("127.0.0.1:8080"), 9, 1009);
    evidence.looks[0].seen_mut().push(seen);
    let verdict = |evidence: &PortEvidence| {
        let report = PortReport::examine(evidence.clone());
        let blockers = report.restart[0].verdicts[0].obstacles();
        (report.sockets.len(), blockers.get(&Obstacle::Bound).copied())
    };
    assert_eq!(verdict(&evidence), (3, Some(1)));
    let mut listed = owner(9, State::Close, "127.0.0.1:8080", None);
    listed.inode = 1009;
    evidence.files = vec![file(5, 3, &listed)];
    assert_eq!(verdict(&evidence), (3, Some(1)), "by both");
    let told = PortReport::examine(evidence.clone());
    let bound = told.sockets.iter().find(|socket| !socket.holders.is_empty());
    let reuse = bound.unwrap().occupant.owner.reuse;
    assert_eq!(reuse, Some(Reuse::default()), "the descriptor tells its options");
    let owners = evidence.looks[0].owners.as_mut().unwrap();
    owners.push(listed.into());
    assert_eq!(verdict(&evidence), (3, Some(1)), "by all three");
}

/// Each namespace has a first port that everybody may have.
#[test]
fn the_right_to_a_port_is_of_one_namespace() {
    let told = |forbidden: u32| {
        let mut evidence = evidence();
        evidence.forbidden.insert(forbidden);
        PortReport::examine(evidence)
    };
    let plain = Reuse::default();
    let own = told(1);
    assert_eq!(own.restart[0].verdicts[0].bind, Answer::Permission);
    assert!(own.is_hopeless(plain) && !own.is_free(plain));
    assert!(!told(2).is_hopeless(plain), "it is another one's");
}

/// Before 6.8 nothing shows it.
#[test]
fn what_cannot_be_seen_may_be_in_the_way() {
    let mut evidence = evidence();
    evidence.looks[0].shows_bound = false;
    let blocked = PortReport::examine(evidence.clone());
    let plain = Reuse::default();
    assert!(
        !blocked.is_free(plain) && !blocked.is_unseen(plain),
        "it is to be waited for"
    );
    evidence.looks[0].owners = Some(Vec::new());
    let unseen = PortReport::examine(evidence);
    assert!(!unseen.is_free(plain) && unseen.is_unseen(plain));
    assert_eq!(unseen.restart[0].verdicts[0].answer(), Answer::Unknown);
}

/// The subflow has the port, the descriptor leads to the MPTCP socket.
#[test]
fn an_mptcp_listener_is_held_once() {
    let mut evidence = evidence();
    let mut msk = owner(77, State::Listen, "0.0.0.0:8080", None);
    msk.protocol = Protocol::Mptcp;
    evidence.files = vec![file(5, 3, &msk)];
    let report = PortReport::examine(evidence);
    assert_eq!(report.sockets.len(), 2);
    assert_eq!(report.sockets[0].holders[0].pid, 5);
}

#[test]
fn another_namespace_is_in_nobodys_way() {
    let mut evidence = evidence();
    let look = &mut evidence.looks[0];
    look.netns = 7;
    for owner in look.owners.iter_mut().flatten() {
        Arc::make_mut(owner).netns = 7;
    }
    evidence.looks.push(snapshot(Vec::new()));
    let report = PortReport::examine(evidence);
    assert_eq!(report.sockets.len(), 2);
    assert!(report.is_free(Reuse::default()));
    let namespaces: Vec<u32> = report
        .restart
        .iter()
        .map(|restart| restart.endpoint.netns)
        .collect();
    assert_eq!(namespaces, [1, 7]);
}
