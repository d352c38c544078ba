//! What became of an MPTCP socket, from what became of the TCP sockets under it.
//!
//! `__mptcp_close` (net/mptcp/protocol.c) takes the subflows from their file at once but closes them only when
//! the MPTCP socket is done, by the peer's DATA_FIN or after a minute: until then they are ESTABLISHED
//! orphans, which plain TCP never leaves.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::expiry::Freedom;
use crate::observed::{Sighting, Socket, Transition};
use crate::verdict::Outcome;
use crate::verdict::decide::leftover;
use crate::verdict::socket_verdict::Verdict;

/// A subflow never has a file of its own. sock_diag shows the inode of its MPTCP socket, and a kernel that has
/// `sock.sk_ino` (6.18) still does when that is closed: `__mptcp_close` clears `sk_socket` only.
pub(crate) fn without_file(sighting: &Sighting) -> Sighting {
    Sighting {
        inode: 0,
        ..sighting.clone()
    }
}

/// Decides the MPTCP socket by the subflow that lives longest, and its waiting subflows by the MPTCP socket. `subflows` are
/// the sockets of its subflows' verdicts.
pub(crate) fn settle(msk: &mut Verdict, subflows: &[Socket]) {
    let held = msk.outcome == Outcome::Held;
    let there = msk.state.is_some();
    let mut verdicts = std::mem::take(&mut msk.subflows);
    for verdict in &mut verdicts {
        if held || (there && is_waiting(verdict)) {
            take_over(verdict, msk);
        }
    }
    let longest = verdicts
        .iter()
        .zip(subflows)
        .max_by(|one, other| by_life(*one, *other));
    if let Some((longest, _)) = longest.filter(|_| !held) {
        take_over(msk, longest);
        if !is_waiting(longest) {
            msk.state = longest.state;
        }
    }
    msk.subflows = verdicts;
}

/// An orphan in a state that only an MPTCP socket keeps it in.
fn is_waiting(subflow: &Verdict) -> bool {
    subflow.state.is_some_and(|state| leftover(state).is_none())
}

fn take_over(verdict: &mut Verdict, from: &Verdict) {
    verdict.outcome = from.outcome;
    verdict.why = from.why;
    verdict.freedom = from.freedom;
}

/// What is there lives longer than what is gone; of two that are there, one without an end does.
fn by_life(one: (&Verdict, &Socket), other: (&Verdict, &Socket)) -> Ordering {
    let there = |verdict: &Verdict| match verdict.outcome {
        Outcome::Reset | Outcome::Closed => 0,
        Outcome::Unknown => 1,
        _ => 2,
    };
    there(one.0)
        .cmp(&there(other.0))
        .then_with(|| is_waiting(one.0).cmp(&is_waiting(other.0)))
        .then_with(|| end(one.0.freedom).cmp(&end(other.0.freedom)))
        .then_with(|| last_change(one.1).cmp(&last_change(other.1)))
}

fn end(freedom: Freedom) -> Timestamp {
    freedom.latest().or(freedom.at()).unwrap_or(Timestamp::MAX)
}

fn last_change(subflow: &Socket) -> Option<Timestamp> {
    subflow.transitions.last().map(Transition::time)
}

#[cfg(test)]
#[path = "mptcp_tests.rs"]
mod tests;
