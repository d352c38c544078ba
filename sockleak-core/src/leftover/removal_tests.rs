use std::time::Duration;

use super::*;
use crate::leftover::Danger;
use crate::testing::{addr, evidence, sighting, socket};
use crate::verdict::examine;

const ABLE: Powers = Powers {
    time_wait: Power::Works,
    orphan: Power::Works,
};

/// As if nothing else were there.
fn alone() -> DiscardRule {
    DiscardRule::abandoned([])
}

fn judge(sighting: &Sighting) -> Result<Removable, Reason> {
    Removable::judge(sighting, &DiscardRule::Always)
}

fn planned(sighting: &Sighting, powers: &Powers) -> Removal {
    Removal::plan(1, sighting, &DiscardRule::Always, powers)
}

/// Nobody's socket in that state.
fn orphan(state: State) -> Sighting {
    let timer = match state {
        State::TimeWait => Timer::TimeWait,
        State::FinWait2 => Timer::Keepalive,
        _ => Timer::Retransmit,
    };
    Sighting {
        timer,
        ..sighting(&socket(State::Established).build(), state)
    }
}

fn mini() -> Sighting {
    Sighting {
        timer: Timer::TimeWait,
        expires: Duration::ZERO,
        ..orphan(State::FinWait2)
    }
}

#[test]
fn only_what_lingers_after_a_close_is_a_leftover() {
    for state in State::ALL {
        let expected = match state {
            State::TimeWait | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => None,
            State::Listen => Some(Reason::Listener),
            State::Close | State::BoundInactive => Some(Reason::Bound),
            _ => Some(Reason::LiveConnection),
        };
        assert_eq!(judge(&orphan(state)).err(), expected, "{state:?}");
    }
}

#[test]
fn what_somebody_may_have_stays() {
    let held = Sighting {
        inode: 7,
        ..orphan(State::FinWait2)
    };
    assert_eq!(judge(&held), Err(Reason::Held));
    // Before and after its MPTCP socket is closed the subflow may show the inode of that.
    for inode in [0, 7] {
        let subflow = Sighting {
            is_subflow: true,
            inode,
            ..orphan(State::FinWait1)
        };
        assert_eq!(judge(&subflow), Err(Reason::Mptcp));
        // It is so before its connection has ended too.
        for state in [State::Established, State::CloseWait] {
            let subflow = Sighting {
                state,
                ..subflow.clone()
            };
            assert_eq!(judge(&subflow), Err(Reason::Mptcp), "{state:?} {inode}");
        }
    }
    let msk = Sighting {
        protocol: Protocol::Mptcp,
        ..orphan(State::FinWait1)
    };
    assert_eq!(judge(&msk), Err(Reason::Mptcp));
}

#[test]
fn the_kernel_is_never_asked_without_a_cookie() {
    let without = Sighting {
        cookie: u64::MAX,
        ..orphan(State::TimeWait)
    };
    assert_eq!(judge(&without), Err(Reason::NoCookie));
}

#[test]
fn the_kernel_is_asked_for_what_it_was_seen_to_do() {
    use Power::{Defective, Unsupported, Untried, Works};
    let mini = judge(&mini()).unwrap();
    let full = judge(&orphan(State::FinWait2)).unwrap();
    for (time_wait, orphan, of_mini, of_full) in [
        (Works, Works, None, None),
        (Works, Defective, None, Some(Reason::OrphanDefect)),
        (
            Unsupported,
            Defective,
            Some(Reason::TimeWaitUnsupported),
            Some(Reason::OrphanDefect),
        ),
        (
            Unsupported,
            Unsupported,
            Some(Reason::TimeWaitUnsupported),
            Some(Reason::Unsupported),
        ),
        (Untried, Untried, None, Some(Reason::OrphanUntried)),
    ] {
        let powers = Powers { time_wait, orphan };
        assert_eq!(powers.allow(&mini).err(), of_mini, "{powers:?}");
        assert_eq!(powers.allow(&full).err(), of_full, "{powers:?}");
        assert_eq!(
            powers.is_powerless(),
            of_mini.is_some() && of_full.is_some(),
            "{powers:?}"
        );
    }
}

#[test]
fn a_plan_says_what_it_costs_or_why_not() {
    let plan = planned(&mini(), &ABLE);
    assert_eq!((plan.action, plan.reason), (Action::WouldDestroy, None));
    assert_eq!(plan.hazard.map(|hazard| hazard.danger), Some(Danger::PeerReset));
    let plan = planned(&orphan(State::FinWait1), &Powers::UNTRIED);
    assert_eq!(
        (plan.action, plan.reason),
        (Action::Refused, Some(Reason::OrphanUntried))
    );
    let listener = Sighting {
        remote: addr("0.0.0.0:0"),
        inode: 7,
        ..orphan(State::Listen)
    };
    let plan = planned(&listener, &ABLE);
    assert_eq!(
        (plan.action, plan.reason),
        (Action::Skipped, Some(Reason::Listener))
    );
    assert_eq!((plan.remote, plan.hazard), (None, None));
    assert!(plan.is(&listener));
}

#[test]
fn another_cookie_or_address_is_another_socket() {
    let seen = mini();
    let plan = planned(&seen, &ABLE);
    assert!(plan.is(&seen));
    assert!(!plan.is(&Sighting {
        cookie: seen.cookie + 1,
        ..seen.clone()
    }));
    assert!(!plan.is(&Sighting {
        remote: addr("127.0.0.1:1"),
        ..seen.clone()
    }));
    assert!(!plan.is(&Sighting {
        local: addr("127.0.0.9:8080"),
        ..seen
    }));
}

#[test]
fn the_look_afterwards_decides() {
    let refused = Attempt::Refused(Reason::NotPermitted);
    let alone = Attempt::LeftAlone(Reason::Unacknowledged);
    let late = Sighting {
        state: State::TimeWait,
        ..mini()
    };
    for (attempt, still, action, reason) in [
        (Attempt::Done, false, Action::Destroyed, None),
        (Attempt::Done, true, Action::StillThere, None),
        (Attempt::Gone, false, Action::Gone, None),
        (Attempt::Gone, true, Action::StillThere, None),
        (refused, false, Action::Gone, None),
        (refused, true, Action::Refused, Some(Reason::NotPermitted)),
        (alone, false, Action::Gone, None),
        (alone, true, Action::Skipped, Some(Reason::Unacknowledged)),
    ] {
        let mut removal = planned(&mini(), &ABLE);
        removal.conclude(attempt, still.then_some(&late));
        assert_eq!(
            (removal.action, removal.reason),
            (action, reason),
            "{attempt:?} {still}"
        );
        assert_eq!(removal.is_left(Asked::Port), still);
        let state = if still { State::TimeWait } else { State::FinWait2 };
        assert_eq!(removal.state, Some(state));
    }
}

#[test]
fn what_still_sends_needs_a_permission() {
    for state in [State::FinWait1, State::Closing, State::LastAck] {
        // The FIN alone counts too.
        for send_queue in [1, 101] {
            let sending = Sighting {
                send_queue,
                ..orphan(state)
            };
            assert!(judge(&sending).is_ok(), "{state:?}");
            let left = Removal::plan(1, &sending, &alone(), &ABLE);
            let said = (left.action, left.reason);
            assert_eq!(said, (Action::Skipped, Some(Reason::Unacknowledged)), "{state:?}");
            let lost = left.hazard.map(|hazard| hazard.lost_bytes);
            assert_eq!(lost, Some(send_queue - 1), "what it would cost");
        }
    }
    for state in [State::TimeWait, State::FinWait2] {
        assert!(Removable::judge(&orphan(state), &alone()).is_ok(), "{state:?}");
    }
}

#[test]
fn only_a_leftover_that_was_asked_for_is_left() {
    let held = Sighting {
        inode: 7,
        ..orphan(State::FinWait2)
    };
    for living in [
        &orphan(State::Listen),
        &orphan(State::Established),
        &orphan(State::Close),
        &held,
    ] {
        for asked in [Asked::Port, Asked::Report] {
            assert!(!planned(living, &ABLE).is_left(asked), "{living:?}");
        }
    }
    let sending = orphan(State::FinWait1);
    // Nobody is seen to have it, so its process may be dead.
    let mut subflow = planned(
        &Sighting {
            is_subflow: true,
            ..orphan(State::Established)
        },
        &ABLE,
    );
    assert!(subflow.is_left(Asked::Port));
    subflow.holders.push(Holder {
        pid: 4243,
        comm: "worker".into(),
        fd: 3,
        how: None,
    });
    assert!(!subflow.is_left(Asked::Port));
    let silent = Removal::plan(1, &sending, &alone(), &ABLE);
    assert!(silent.is_left(Asked::Port) && silent.is_left(Asked::Report));
    // It may be of the service that has the port; a report knows that it is not.
    let rule = DiscardRule::abandoned([&orphan(State::Listen)]);
    let answer = Removal::plan(1, &sending, &rule, &ABLE);
    assert_eq!(answer.reason, Some(Reason::PortInUse));
    assert!(!answer.is_left(Asked::Port) && answer.is_left(Asked::Report));
    let without = Sighting {
        cookie: u64::MAX,
        ..mini()
    };
    assert!(planned(&without, &ABLE).is_left(Asked::Port));
    assert!(
        planned(
            &mini(),
            &Powers {
                time_wait: Power::Unsupported,
                ..ABLE
            }
        )
        .is_left(Asked::Port)
    );
    assert!(!planned(&mini(), &ABLE).is_left(Asked::Port), "a dry run");
}

#[test]
fn an_mptcp_socket_stands_for_subflows_that_were_not_looked_at() {
    let count = |is_complete, subflows| {
        let mptcp = socket(State::Established).with(|socket| {
            socket.protocol = Protocol::Mptcp;
            socket.subflows_complete = is_complete;
            socket.subflows = subflows;
        });
        let report = examine(evidence(vec![mptcp.build()], Vec::new()));
        Recorded::of(&report).count()
    };
    let two = || {
        vec![
            socket(State::Established).build(),
            socket(State::Established).build(),
        ]
    };
    assert_eq!(count(false, Vec::new()), 1);
    assert_eq!(count(true, Vec::new()), 0, "it has none");
    assert_eq!((count(true, two()), count(false, two())), (2, 2));
}
