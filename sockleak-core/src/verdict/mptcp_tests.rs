use super::*;
use crate::expiry::FreeRule;
use crate::leftover::leftovers;
use crate::observed::{Protocol, Socket, State, Timer};
use crate::testing::{at, evidence, sighting, socket};
use crate::verdict::{Report, SocketReport, Why, examine, settled};

fn subflow(number: u16, state: State, changes: &[(State, State)]) -> Socket {
    socket(state)
        .changes(changes)
        .with(|subflow| {
            subflow.id.sk += u64::from(number);
            subflow.cookie = Some(100 + u64::from(number));
            (subflow.inode, subflow.references) = (None, None);
            subflow.fds.clear();
            if let Some(remote) = &mut subflow.remote {
                remote.set_port(20_000 + number);
            }
        })
        .build()
}

fn msk(changes: &[(State, State)], subflows: &[&Socket]) -> Socket {
    socket(State::Established)
        .changes(changes)
        .with(|msk| {
            msk.protocol = Protocol::Mptcp;
            msk.subflows = subflows.iter().copied().cloned().collect();
            msk.subflows_complete = true;
        })
        .build()
}

const TO_FIN_WAIT2: [(State, State); 2] = [
    (State::Established, State::FinWait1),
    (State::FinWait1, State::FinWait2),
];
const TO_CLOSE: [(State, State); 3] = [TO_FIN_WAIT2[0], TO_FIN_WAIT2[1], (State::FinWait2, State::Close)];

/// An orphan of 6.18, with the inode that the kernel forgot there.
fn orphan(subflow: &Socket) -> Sighting {
    Sighting {
        inode: 70,
        timer: Timer::None,
        ..sighting(subflow, State::Established)
    }
}

fn told(report: &SocketReport) -> (Outcome, Option<State>, FreeRule) {
    (report.outcome, report.state, report.freedom.rule)
}

fn only(report: &Report) -> &SocketReport {
    assert_eq!(report.sockets.len(), 1);
    &report.sockets[0]
}

#[test]
fn an_established_orphan_waits_with_its_mptcp_socket() {
    let waiting = subflow(1, State::Established, &[]);
    let msk = msk(&TO_FIN_WAIT2, &[&waiting]);
    let own = Sighting {
        timer: Timer::Keepalive,
        ..sighting(&msk, State::FinWait2)
    };
    let report = examine(evidence(vec![msk], vec![own, orphan(&waiting)]));
    let entry = only(&report);
    let rule = FreeRule::MptcpTimeout;
    assert_eq!(told(entry), (Outcome::FinWait2, Some(State::FinWait2), rule));
    assert_eq!(
        told(&entry.subflows[0]),
        (Outcome::FinWait2, Some(State::Established), rule)
    );
    assert_eq!(entry.freedom.at(), Some(at(100 + 59_700)));
    assert_eq!(entry.freedom.latest(), None, "its subflow is closed only then");
    assert_eq!(
        leftovers(&report).map(|left| left.cookie).collect::<Vec<_>>(),
        [101],
        "the subflow outlives it"
    );
}

#[test]
fn an_established_orphan_of_nobody_cannot_be_told() {
    let lost = subflow(1, State::Established, &[]);
    let report = examine(evidence(vec![msk(&TO_CLOSE, &[&lost])], vec![orphan(&lost)]));
    assert_eq!(only(&report).outcome, Outcome::Unknown);
    assert_eq!(only(&report).subflows[0].outcome, Outcome::Unknown);
}

#[test]
fn the_longest_living_subflow_decides() {
    let reset = Socket {
        reset_received: Some(crate::observed::ResetReceived {
            state: State::Established,
        }),
        ..subflow(1, State::Established, &[(State::Established, State::Close)])
    };
    let left = subflow(2, State::Established, &TO_CLOSE);
    for order in [[&reset, &left], [&left, &reset]] {
        let seen = vec![sighting(&left, State::TimeWait)];
        let report = examine(evidence(vec![msk(&TO_CLOSE, &order)], seen));
        let entry = only(&report);
        let rule = FreeRule::TimewaitTimer;
        assert_eq!(told(entry), (Outcome::TimeWait, Some(State::TimeWait), rule));
        let mut outcomes = order.map(|_| Outcome::Unknown);
        for (outcome, subflow) in outcomes.iter_mut().zip(&entry.subflows) {
            *outcome = subflow.outcome;
        }
        outcomes.sort_unstable();
        assert_eq!(outcomes, [Outcome::TimeWait, Outcome::Reset]);
        assert_eq!(report.summary.total(), 1, "subflows are no entries");
        assert_eq!(leftovers(&report).count(), 1);
    }
    let report = examine(evidence(vec![msk(&TO_CLOSE, &[&reset])], Vec::new()));
    assert_eq!(
        (only(&report).outcome, only(&report).why),
        (Outcome::Reset, Why::PeerReset)
    );
}

#[test]
fn what_is_held_holds_its_subflows() {
    let waiting = subflow(1, State::Established, &[]);
    let msk = msk(&[], &[&waiting]);
    let own = Sighting {
        inode: 70,
        ..sighting(&msk, State::Established)
    };
    let report = examine(evidence(vec![msk], vec![own, orphan(&waiting)]));
    let entry = only(&report);
    let held = (Outcome::Held, Some(State::Established), FreeRule::Holder);
    assert_eq!((told(entry), told(&entry.subflows[0])), (held, held));
    assert_eq!(leftovers(&report).next().unwrap().cookie, 7);
}

#[test]
fn what_was_not_looked_at_is_said() {
    let mut unknown = msk(&TO_CLOSE, &[]);
    unknown.subflows_complete = false;
    assert_eq!(examine(evidence(vec![unknown], Vec::new())).blind.len(), 1);
    assert!(
        examine(evidence(vec![msk(&TO_CLOSE, &[])], Vec::new()))
            .blind
            .is_empty()
    );
}

#[test]
fn the_worker_has_to_come() {
    let open = subflow(1, State::Established, &[]);
    assert!(!settled(&[msk(&TO_CLOSE, &[&open])]));
    assert!(settled(&[msk(&TO_FIN_WAIT2, &[&open])]));
    assert!(settled(&[msk(
        &TO_CLOSE,
        &[&subflow(1, State::Established, &TO_CLOSE)]
    )]));
    let closing = subflow(1, State::Established, &TO_CLOSE[..1]);
    assert!(!settled(&[msk(&TO_CLOSE, &[&closing])]));
}
