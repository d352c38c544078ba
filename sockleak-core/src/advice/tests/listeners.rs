//! A restart and the listener before it.

use std::time::Duration;

use super::*;

#[test]
fn leftover_without_reuseaddr() {
    let id = AdviceId::LeftoverWithoutReuseaddr;
    let facts = grounds(server(false, false), id).expect("it is in the way");
    let at = crate::testing::at(100 + 59_700);
    let expected = [
        ("leftovers", Fact::Count(1)),
        ("ports", Fact::Ports(vec![8080])),
        ("free_at", Fact::FreeAt(Some(at))),
    ];
    assert_eq!(facts, expected);
    assert!(!is_said(server(true, false), id));
    assert!(!is_said(server(false, true), id));
    let (reset, _) = accepted(false, false, State::TimeWait);
    assert!(!is_said(
        with(vec![listener(false, false), reset], Vec::new()),
        id
    ));
    let outgoing = outgoing(40_000).build();
    let left = sighting(&outgoing, State::TimeWait);
    assert!(!is_said(
        with(vec![listener(false, false), outgoing], vec![left]),
        id
    ));

    let mut before = server(false, false);
    let mut closed = before.sockets.pop().expect("the connection");
    closed.id.origin = Origin::Live;
    before.closed_alive.push(closed);
    assert!(is_said(before, id));
}

#[test]
fn listener_without_reuseaddr() {
    let id = AdviceId::ListenerWithoutReuseaddr;
    let expected = vec![("listeners", Fact::Count(1)), ("ports", Fact::Ports(vec![8080]))];
    assert_eq!(
        grounds(with(vec![listener(false, false)], Vec::new()), id),
        Some(expected)
    );
    assert!(!is_said(with(vec![listener(true, false)], Vec::new()), id));
    assert!(!is_said(with(vec![listener(false, true)], Vec::new()), id));
    let (connection, left) = accepted(false, false, State::TimeWait);
    assert!(!is_said(with(vec![connection], vec![left]), id));

    let mut unwound = with(Vec::new(), Vec::new());
    let mut closed = listener(false, false);
    closed.id.origin = Origin::Live;
    unwound.closed_alive.push(closed.into());
    assert!(is_said(unwound, id));
}

/// A server whose listener somebody has still.
fn survived(reuseport: bool, relation: Relation) -> Evidence {
    let mut held = listener(true, reuseport);
    held.transitions.clear();
    held.references = Some(2);
    let mut seen = sighting(&held, State::Listen);
    (seen.inode, seen.timer) = (1, Timer::None);
    let mut evidence = with(vec![held], vec![seen]);
    evidence.holdings.push(Holding {
        inode: 1,
        pid: 4243,
        comm: "worker".into(),
        fd: 3,
        relation,
    });
    evidence
}

#[test]
fn inherited_listener() {
    let id = AdviceId::InheritedListener;
    let facts = grounds(survived(false, Relation::Family), id).expect("a child has it");
    let expected = [
        ("listeners", Fact::Count(1)),
        ("holders", Fact::Count(1)),
        ("ports", Fact::Ports(vec![8080])),
    ];
    assert_eq!(facts, expected);
    assert!(!is_said(survived(false, Relation::Received), id));
    assert!(!is_said(survived(false, Relation::Unknown), id));
    assert!(!is_said(server(true, false), id));
}

#[test]
fn reuseport_survivor() {
    let id = AdviceId::ReuseportSurvivor;
    assert_eq!(count(survived(true, Relation::Family), id), Some(Fact::Count(1)));
    assert!(is_said(survived(true, Relation::Received), id));
    assert!(!is_said(survived(false, Relation::Family), id));
    assert!(!is_said(server(true, true), id));
}

#[test]
fn core_dump_held_port() {
    let id = AdviceId::CoreDumpHeldPort;
    let dumped = |mut evidence: Evidence, millis| {
        let death = evidence.death.as_mut().expect("it died");
        death.core_dump = Some(Duration::from_millis(millis));
        evidence
    };
    let facts = grounds(dumped(server(true, false), 4200), id).expect("it took long");
    assert_eq!(
        facts[0],
        ("core_dump_ms", Fact::Lasted(Duration::from_millis(4200)))
    );
    assert!(!is_said(dumped(server(true, false), 99), id));
    assert!(!is_said(dumped(with(Vec::new(), Vec::new()), 4200), id));
    assert!(!is_said(server(true, false), id));
}
