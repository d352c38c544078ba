//! Whether it is worth looking yet.

use std::borrow::Borrow;

use crate::expiry::FreeRule;
use crate::observed::{Evidence, Socket, State};
use crate::verdict::judge::{Judge, Sights};
use crate::verdict::{Outcome, Why, overflow};

/// True when the kernel was seen to do to every socket what it does at once: nothing is on its way through
/// FIN_WAIT1, CLOSING or LAST_ACK, and nothing is open that only the dead process had.
///
/// Whether somebody else has a socket is taken from its references: where those are unknown, an open socket
/// counts as settled. A FIN_WAIT2 does too, since it may stay one for a minute and more.
#[must_use]
pub fn settled(sockets: &[impl Borrow<Socket>]) -> bool {
    sockets.iter().all(|socket| is_settled(socket.borrow()))
}

fn is_settled(socket: &Socket) -> bool {
    // A worker closes the subflows after the MPTCP socket.
    let done = socket.last_state() == State::Close;
    let subflows_settled = socket
        .subflows
        .iter()
        .all(|subflow| is_settled(subflow) && !(done && is_open(subflow.last_state())));
    subflows_settled
        && match socket.last_state() {
            State::FinWait1 | State::Closing | State::LastAck => false,
            State::Established
            | State::SynSent
            | State::SynRecv
            | State::NewSynRecv
            | State::CloseWait
            | State::Listen => socket.may_be_shared(),
            State::FinWait2 | State::TimeWait | State::Close | State::BoundInactive => true,
        }
}

const fn is_open(state: State) -> bool {
    matches!(state, State::Established | State::SynRecv | State::CloseWait)
}

/// True when another look a moment later would say the same: what is FIN_WAIT1, CLOSING or LAST_ACK waits
/// for a peer that did not answer a retransmission, or that keeps its window closed, and nobody who still has a socket is
/// about to close it. What is held without a descriptor may be on its way to be closed: a kworker does that for the files of
/// an io_uring after its process was reaped (`io_ring_exit_work`), and for those that are put in an interrupt
/// (`delayed_fput`). `is_dying` tells whether a process is on its way through its exit.
#[must_use]
pub fn has_settled(evidence: &Evidence, is_dying: impl Fn(u32) -> bool) -> bool {
    let Evidence {
        sockets, snapshots, ..
    } = evidence;
    let sights = Sights::find(sockets, &evidence.closed_alive, snapshots);
    let judge = Judge::new(
        &evidence.holdings,
        evidence.unreadable > 0,
        evidence.time,
        evidence.hz,
    );
    let mut verdicts = judge.verdicts(sockets, &sights);
    overflow::explain(sockets, &mut verdicts, snapshots);
    verdicts.iter().all(|verdict| match verdict.outcome {
        Outcome::FinWait1 | Outcome::Closing | Outcome::LastAck => {
            verdict.why == Why::PeerUnreachable || verdict.freedom.rule == FreeRule::Persist
        }
        Outcome::Held => {
            !verdict.holders.is_empty() && !verdict.holders.iter().any(|holder| is_dying(holder.pid))
        }
        // The kernel may have ended it after the maps were read and before sock_diag was.
        Outcome::Unknown => verdict.why != Why::Unknown,
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{evidence, sighting, socket};
    use crate::verdict::examine;

    #[test]
    fn waits_for_an_end_that_was_not_read_yet() {
        let closing = socket(State::Established).changes(&[(State::Established, State::FinWait1)]);
        let gone = || evidence(vec![closing.clone().build()], Vec::new());
        assert!(!has_settled(&gone(), |_| false));
        assert_eq!(examine(gone()).sockets[0].outcome, Outcome::Unknown);
        let closed = closing.changes(&[
            (State::FinWait1, State::FinWait2),
            (State::FinWait2, State::Close),
        ]);
        let socket = closed.build();
        let left = sighting(&socket, State::FinWait2);
        assert!(has_settled(&evidence(vec![socket], vec![left]), |_| false));
    }

    #[test]
    fn waits_for_the_ack_of_the_fin() {
        let closing = socket(State::Established).changes(&[(State::Established, State::FinWait1)]);
        assert!(!settled(&[closing.clone().build()]));
        let done = closing.changes(&[
            (State::FinWait1, State::FinWait2),
            (State::FinWait2, State::Close),
        ]);
        assert!(settled(&[done.build()]));
    }

    #[test]
    fn waits_for_the_close_of_what_nobody_else_has() {
        let mut listener = socket(State::Listen).build();
        assert!(!settled(std::slice::from_ref(&listener)));
        listener.references = Some(2);
        assert!(settled(std::slice::from_ref(&listener)));
        listener.references = None;
        assert!(settled(&[listener]));
    }
}
