use std::time::Duration;

use super::*;
use crate::observed::{Protocol, State};
use crate::testing::{at, evidence, sighting, snapshot, socket};
use crate::verdict::examine;

fn begin() -> (Countdown, Sighting) {
    let closed = socket(State::Established).build();
    let seen = sighting(&closed, State::FinWait2);
    let evidence = evidence(vec![closed], vec![seen.clone()]);
    let looks = [LookedAt {
        began: evidence.time,
        ..LookedAt::of(&evidence.snapshots[0])
    }];
    let report = examine(evidence);
    let mut countdown = Countdown::new(250);
    countdown.add(leftovers(&report), &looks);
    (countdown, seen)
}

fn look_at(millis: i64, sightings: Vec<Sighting>) -> Snapshot {
    Snapshot {
        began: at(millis),
        time: at(millis),
        ..snapshot(sightings)
    }
}

#[test]
fn the_real_moment_lies_between_two_looks() {
    let (mut countdown, mut seen) = begin();
    assert_eq!(countdown.next(at(100)), Some(at(59_800)));
    assert_eq!(countdown.last(), Some(at(59_800)));
    seen.expires = Duration::from_millis(29_700);
    let look = countdown.look(&look_at(30_100, vec![seen]));
    assert!(look.freed.is_empty() && look.moved.is_empty());
    let look = countdown.look(&look_at(60_700, Vec::new()));
    assert_eq!(look.freed.len(), 1);
    assert_eq!(look.freed[0].not_before, at(30_100));
    assert_eq!(look.freed[0].time, at(60_700));
    assert_eq!(look.freed[0].leftover.freedom.rule, FreeRule::FinTimeout);
    assert!(countdown.is_done());
}

#[test]
fn the_peers_fin_starts_another_minute() {
    let (mut countdown, mut seen) = begin();
    seen.state = State::TimeWait;
    seen.expires = Duration::from_secs(60);
    let look = countdown.look(&look_at(30_100, vec![seen]));
    assert_eq!(look.moved.len(), 1);
    assert_eq!(look.moved[0].freedom.at(), Some(at(90_100)));
    assert_eq!(look.moved[0].outcome(), Outcome::TimeWait);
}

#[test]
fn small_steps_add_up_to_a_move() {
    let (mut countdown, mut seen) = begin();
    let mut moved = 0;
    for look in 1..=4 {
        // Chatter of the peer: at each look there are 59.7 s left.
        seen.expires = Duration::from_millis(59_700);
        moved += countdown
            .look(&look_at(100 + look * 600, vec![seen.clone()]))
            .moved
            .len();
    }
    assert_eq!(moved, 2);
}

#[test]
fn a_late_timer_moves_nothing() {
    let (mut countdown, mut seen) = begin();
    seen.expires = Duration::ZERO;
    assert!(countdown.look(&look_at(61_500, vec![seen])).moved.is_empty());
}

#[test]
fn a_namespace_takes_its_leftovers_along() {
    let (mut countdown, _) = begin();
    let gone = Snapshot {
        sightings: None,
        ..look_at(500, Vec::new())
    };
    let look = countdown.look(&gone);
    assert_eq!(look.freed[0].leftover.freedom.rule, FreeRule::NetnsGone);
    assert!(countdown.is_done());
}

#[test]
fn what_a_look_was_not_for_is_not_called_free() {
    let (mut countdown, _) = begin();
    let own = countdown.next_look().next().expect("it is to be looked at").scope;
    let mut elsewhere = own.clone();
    elsewhere.ports = own.ports.iter().map(|port| port + 1).collect();
    let mut others = own.clone();
    others.kinds = [(Protocol::Mptcp, Family::Ipv4)].into();
    for scope in [elsewhere, others] {
        let look = countdown.look(&Snapshot {
            scope: Some(scope),
            ..look_at(500, Vec::new())
        });
        assert!(look.freed.is_empty() && !countdown.is_done());
    }
    let look = countdown.look(&Snapshot {
        scope: Some(own),
        ..look_at(600, Vec::new())
    });
    assert_eq!((look.freed.len(), countdown.is_done()), (1, true));
}

#[test]
fn what_may_not_be_looked_at_is_not_called_free() {
    let (mut countdown, _) = begin();
    let refused = Snapshot {
        sightings: None,
        refused: Some("it needs CAP_SYS_PTRACE".to_owned()),
        ..look_at(500, Vec::new())
    };
    let look = countdown.look(&refused);
    assert!(look.freed.is_empty() && countdown.is_done());
    assert_eq!(look.out_of_sight, 1);
}
