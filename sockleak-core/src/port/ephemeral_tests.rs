use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::expiry::FreeRule;
use crate::observed::Evidence;
use crate::observed::{BlindSpot, Origin};
use crate::testing::{addr, at, evidence, local_ports, outgoing, sighting, socket};
use crate::verdict::examine;

/// A process that died with these sockets, which are all in that state now, beside those of others.
fn death(sockets: Vec<Socket>, state: State, others: Vec<Sighting>) -> Evidence {
    let left: Vec<Sighting> = sockets.iter().map(|socket| sighting(socket, state)).collect();
    let mut evidence = evidence(sockets, left.clone());
    let look = &mut evidence.snapshots[0];
    look.local_ports = Some(local_ports());
    look.same_destination = Some(Arc::new(left.into_iter().chain(others).collect()));
    evidence
}

fn ten(state: State, others: Vec<Sighting>) -> Evidence {
    death(
        (40_000..40_010).map(|port| outgoing(port).build()).collect(),
        state,
        others,
    )
}

fn rules(evidence: &mut Evidence) -> &mut LocalPorts {
    evidence.snapshots[0].local_ports.as_mut().expect("they were set")
}

#[track_caller]
fn row(evidence: Evidence) -> Ephemeral {
    let report = examine(evidence);
    let [row] = &report.ephemeral[..] else {
        panic!("one destination: {:?}", report.ephemeral);
    };
    row.clone()
}

/// Somebody else's socket.
fn other(local: &str, remote: &str, state: State) -> Sighting {
    let mut other = sighting(&socket(State::Established).build(), state);
    other.local = addr(local);
    other.remote = addr(remote);
    (other.timer, other.expires) = (Timer::None, Duration::ZERO);
    other.inode = 77;
    other
}

#[test]
fn what_is_left_is_the_range_without_what_is_taken() {
    let others = vec![
        // To the same destination, to another port, address, and from another address.
        other("10.0.0.7:40020", "10.0.0.5:5432", State::Established),
        other("10.0.0.7:40021", "10.0.0.5:5433", State::Established),
        other("10.0.0.7:40022", "10.0.0.6:5432", State::Established),
        other("10.0.0.8:40023", "10.0.0.5:5432", State::Established),
        // Mapped addresses are those of IPv4, and the same port is counted once.
        other(
            "[::ffff:10.0.0.7]:40024",
            "[::ffff:10.0.0.5]:5432",
            State::Established,
        ),
        other("10.0.0.7:40020", "10.0.0.5:5432", State::Close),
        // Ports that a bind() owns, one of which is reserved anyway.
        other("0.0.0.0:40025", "0.0.0.0:0", State::Listen),
        other("127.0.0.1:40026", "0.0.0.0:0", State::BoundInactive),
        other("0.0.0.0:40011", "0.0.0.0:0", State::Listen),
        // Outside the range.
        other("10.0.0.7:50123", "10.0.0.5:5432", State::Established),
    ];
    let row = row(ten(State::TimeWait, others));
    assert_eq!(
        (row.laddr, row.raddr, row.rport),
        ([10, 0, 0, 7].into(), [10, 0, 0, 5].into(), 5432)
    );
    assert_eq!((row.range_total, row.reserved), (100, 11));
    assert_eq!((row.in_use, row.held), (10, 0));
    assert_eq!(row.available, 89 - 10 - 2 - 2);
    assert_eq!((row.reusable, row.reusable_at), (0, None));
    assert_eq!((row.connect_fails, row.connect_fails_until), (Some(false), None));
    assert_eq!(row.free_at, Some(at(100 + 59_700)));
    assert_eq!(row.free_at_latest, Some(at(100 + 59_700 + 2048)));
}

#[test]
fn only_outgoing_connections_count() {
    let listener = socket(State::Listen)
        .with(|socket| socket.local = addr("0.0.0.0:40001"))
        .build();
    let accepted = outgoing(40_001).with(|socket| socket.remote = Some(addr("10.1.2.3:50001")));
    let beyond = outgoing(50_123);
    let incoming = outgoing(40_002).with(|socket| socket.remote = Some(addr("10.1.2.3:50002")));
    let sockets = vec![listener, accepted.build(), beyond.build(), incoming.build()];
    // Somebody else listens on the port of the last one: it was accepted by a process that had no listener.
    let others = vec![other("0.0.0.0:40002", "0.0.0.0:0", State::Listen)];
    assert_eq!(examine(death(sockets, State::TimeWait, others)).ephemeral, []);

    let many = (1..4_u16).map(|number| {
        outgoing(40_001)
            .with(|socket| {
                socket.cookie = Some(number.into());
                socket.inode = Some(number.into());
                socket.id.sk += u64::from(number);
                socket.remote = Some(SocketAddr::new([10, 1, 2, 3].into(), number));
            })
            .build()
    });
    assert_eq!(
        examine(death(many.collect(), State::FinWait2, Vec::new())).ephemeral,
        []
    );
}

#[test]
fn a_listeners_leftovers_keep_its_port_from_connect() {
    let listener = socket(State::Listen)
        .with(|socket| socket.local = addr("0.0.0.0:40001"))
        .build();
    let accepted = outgoing(40_001)
        .with(|socket| socket.remote = Some(addr("10.1.2.3:50001")))
        .build();
    let left = death(
        vec![listener.clone(), accepted, outgoing(40_002).build()],
        State::TimeWait,
        Vec::new(),
    );
    assert_eq!(row(left).available, 89 - 2);
    let mut gone = death(vec![outgoing(40_002).build()], State::TimeWait, Vec::new());
    gone.sockets.push(listener.into());
    assert_eq!(row(gone).available, 89 - 1);
}

#[test]
fn a_time_wait_is_taken_over_after_a_second_where_that_is_on() {
    let with = |tw_reuse, timestamps, state, remote: &str| {
        let mut evidence = ten(state, Vec::new());
        (rules(&mut evidence).tw_reuse, rules(&mut evidence).timestamps) = (tw_reuse, timestamps);
        let remote = addr(remote);
        evidence
            .sockets
            .iter_mut()
            .for_each(|socket| socket.remote = Some(remote));
        let rows = evidence.snapshots[0].all_mut();
        rows.for_each(|sighting| sighting.remote = remote);
        let row = row(evidence);
        (row.reusable, row.reusable_at)
    };
    // Its timer has run for 300 ms of the second.
    let soon = (10, Some(at(100 + 720)));
    let never = (0, None);
    let there = "10.0.0.5:5432";
    assert_eq!(with(TwReuse::Always, true, State::TimeWait, there), soon);
    assert_eq!(with(TwReuse::Always, false, State::TimeWait, there), never);
    assert_eq!(with(TwReuse::Always, true, State::FinWait2, there), never);
    assert_eq!(with(TwReuse::Never, true, State::TimeWait, there), never);
    assert_eq!(with(TwReuse::Loopback, true, State::TimeWait, there), never);
    assert_eq!(
        with(TwReuse::Loopback, true, State::TimeWait, "127.0.0.9:5432"),
        soon
    );
}

/// Ten connections with a range of eleven ports, one of which is a listener's.
fn exhausted(state: State, tw_reuse: TwReuse, expires: u64) -> Ephemeral {
    row(exhaustion(state, tw_reuse, expires))
}

fn exhaustion(state: State, tw_reuse: TwReuse, expires: u64) -> Evidence {
    let mut evidence = ten(state, vec![other("0.0.0.0:40010", "0.0.0.0:0", State::Listen)]);
    let rules = rules(&mut evidence);
    (rules.range, rules.reserved, rules.tw_reuse) = (40_000..=40_010, Vec::new(), tw_reuse);
    for left in evidence.snapshots[0].all_mut() {
        left.expires = Duration::from_millis(expires);
    }
    evidence
}

#[test]
fn an_older_kernel_may_take_over_a_fin_wait2() {
    let on_old = |tw_reuse| {
        let mut old = exhaustion(State::FinWait2, tw_reuse, 30_000);
        rules(&mut old).tw_reuse_delay = None;
        row(old).connect_fails
    };
    assert_eq!(on_old(TwReuse::Always), None);
    assert_eq!(on_old(TwReuse::Never), Some(true));
    // 10.0.0.5 is no loopback address.
    assert_eq!(on_old(TwReuse::Loopback), Some(true));
}

#[test]
fn a_delay_without_end_is_never_over() {
    let mut endless = exhaustion(State::TimeWait, TwReuse::Always, 30_000);
    rules(&mut endless).tw_reuse_delay = Some(Duration::MAX);
    let row = row(endless);
    let century = at(100 * 365 * 86_400_000);
    assert!(row.reusable_at.is_none_or(|at| at > century), "{row:?}");
}

#[test]
fn connect_fails_when_nothing_is_left() {
    let row = exhausted(State::FinWait2, TwReuse::Always, 59_700);
    assert_eq!((row.available, row.connect_fails), (0, Some(true)));
    assert_eq!(row.connect_fails_until, Some(at(100 + 59_700)));

    let row = exhausted(State::TimeWait, TwReuse::Always, 59_700);
    assert_eq!(
        (row.available, row.connect_fails),
        (0, Some(true)),
        "none is a second old"
    );
    assert_eq!(row.connect_fails_until, Some(at(100 + 720)));

    let row = exhausted(State::TimeWait, TwReuse::Always, 30_000);
    assert_eq!(
        (row.available, row.connect_fails),
        (0, None),
        "the peer's timestamps decide"
    );
    assert_eq!(row.reusable_at, Some(at(100 - 28_980)));

    let row = exhausted(State::TimeWait, TwReuse::Never, 30_000);
    assert_eq!(row.connect_fails, Some(true));
}

#[test]
fn ports_come_back_by_different_rules() {
    let mut evidence = ten(State::TimeWait, Vec::new());
    let sightings = evidence.snapshots[0].seen_mut();
    (sightings[0].state, sightings[0].timer) = (State::FinWait1, Timer::Persist);
    sightings[0].rto = None;
    sightings[1].state = State::FinWait2;
    sightings[1].expires = Duration::from_secs(30);
    sightings[2].inode = 40_002 + 100_000;
    sightings[2].state = State::Established;
    let row = row(evidence);
    assert_eq!((row.in_use, row.held), (9, 1));
    let rules: Vec<_> = row
        .returns
        .iter()
        .map(|group| (group.rule, group.count))
        .collect();
    let expected = [
        (FreeRule::TimewaitTimer, 7),
        (FreeRule::FinTimeout, 1),
        (FreeRule::Persist, 1),
    ];
    assert_eq!(rules, expected);
    assert_eq!((row.free_at, row.free_at_latest), (None, None));
}

#[test]
fn what_was_closed_before_the_death_counts() {
    let mut evidence = ten(State::TimeWait, Vec::new());
    evidence.closed_alive = std::mem::take(&mut evidence.sockets);
    evidence
        .closed_alive
        .iter_mut()
        .for_each(|socket| socket.id.origin = Origin::Live);
    assert_eq!(row(evidence).in_use, 10);
}

#[test]
fn what_cannot_be_counted_is_said() {
    let unknown = |evidence: Evidence| {
        let report = examine(evidence);
        assert_eq!(report.ephemeral, []);
        report.blind.contains(&BlindSpot::EphemeralUncounted)
    };
    let mut without_rules = ten(State::TimeWait, Vec::new());
    without_rules.snapshots[0].local_ports = None;
    assert!(unknown(without_rules));
    let mut without_the_others = ten(State::TimeWait, Vec::new());
    without_the_others.snapshots[0].same_destination = None;
    assert!(unknown(without_the_others));
    let mut server = death(
        vec![socket(State::Established).build()],
        State::TimeWait,
        Vec::new(),
    );
    server.snapshots[0].same_destination = None;
    assert!(!unknown(server));
}

#[test]
fn destinations_are_those_of_ports_in_the_range() {
    let listener = socket(State::Listen)
        .with(|socket| socket.local = addr("0.0.0.0:40001"))
        .build();
    let accepted = outgoing(40_001)
        .with(|socket| socket.remote = Some(addr("10.1.2.3:50001")))
        .build();
    let reserved = outgoing(40_010)
        .with(|socket| socket.remote = Some(addr("10.1.2.3:50002")))
        .build();
    let sockets = [
        listener,
        accepted,
        reserved,
        outgoing(40_002).build(),
        socket(State::Established).build(),
    ];
    let mut destinations = Destinations::default();
    for socket in &sockets {
        destinations.add(socket);
    }
    assert_eq!(destinations.ports(&local_ports()), BTreeSet::from([5432]));
}
