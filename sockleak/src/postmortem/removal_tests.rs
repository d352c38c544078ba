use std::time::Duration;

use super::*;
use crate::postmortem::Danger;
use crate::postmortem::testing::{addr, sighting, socket};

const ABLE: Powers = Powers {
    time_wait: Power::Works,
    orphan: Power::Works,
};

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
        assert_eq!(Removable::judge(&orphan(state)).err(), expected, "{state:?}");
    }
}

#[test]
fn what_somebody_may_have_stays() {
    let held = Sighting {
        inode: 7,
        ..orphan(State::FinWait2)
    };
    assert_eq!(Removable::judge(&held), Err(Reason::Held));
    // Before and after its MPTCP socket is closed the subflow may show the inode of that.
    for inode in [0, 7] {
        let subflow = Sighting {
            is_subflow: true,
            inode,
            ..orphan(State::FinWait1)
        };
        assert_eq!(Removable::judge(&subflow), Err(Reason::Mptcp));
    }
    let msk = Sighting {
        protocol: Protocol::Mptcp,
        ..orphan(State::FinWait1)
    };
    assert_eq!(Removable::judge(&msk), Err(Reason::Mptcp));
}

#[test]
fn the_kernel_is_never_asked_without_a_cookie() {
    let without = Sighting {
        cookie: u64::MAX,
        ..orphan(State::TimeWait)
    };
    assert_eq!(Removable::judge(&without), Err(Reason::NoCookie));
}

#[test]
fn the_kernel_is_asked_for_what_it_was_seen_to_do() {
    use Power::{Defective, Unsupported, Untried, Works};
    let mini = Removable::judge(&mini()).unwrap();
    let full = Removable::judge(&orphan(State::FinWait2)).unwrap();
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
    let plan = Removal::plan(1, &mini(), &ABLE);
    assert_eq!((plan.action, plan.reason), (Action::WouldDestroy, None));
    assert_eq!(plan.hazard.map(|hazard| hazard.danger), Some(Danger::PeerReset));
    let plan = Removal::plan(1, &orphan(State::FinWait1), &Powers::UNTRIED);
    assert_eq!(
        (plan.action, plan.reason),
        (Action::Refused, Some(Reason::OrphanUntried))
    );
    let listener = Sighting {
        remote: addr("0.0.0.0:0"),
        inode: 7,
        ..orphan(State::Listen)
    };
    let plan = Removal::plan(1, &listener, &ABLE);
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
    let plan = Removal::plan(1, &seen, &ABLE);
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
    ] {
        let mut removal = Removal::plan(1, &mini(), &ABLE);
        removal.conclude(attempt, still.then_some(&late));
        assert_eq!(
            (removal.action, removal.reason),
            (action, reason),
            "{attempt:?} {still}"
        );
        assert_eq!(removal.action.is_undone(), still);
        let state = if still { State::TimeWait } else { State::FinWait2 };
        assert_eq!(removal.state, Some(state));
    }
}
