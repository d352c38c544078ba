//! What became of an MPTCP socket, from what became of the TCP sockets under it.
//!
//! `__mptcp_close` (net/mptcp/protocol.c) takes the subflows from their file at once but closes them only when
//! the MPTCP socket is done, by the peer's DATA_FIN or after a minute: until then they are ESTABLISHED
//! orphans, which plain TCP never leaves.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::expiry::Freedom;
use crate::observed::{Sighting, Transition};
use crate::verdict::decide::leftover;
use crate::verdict::{Outcome, SocketReport};

/// A subflow never has a file of its own. sock_diag shows the inode of its MPTCP socket, and a kernel that has
/// `sock.sk_ino` (6.18) still does when that is closed: `__mptcp_close` clears `sk_socket` only.
pub(crate) fn without_file(sighting: &Sighting) -> Sighting {
    Sighting {
        inode: 0,
        ..sighting.clone()
    }
}

/// Decides the MPTCP socket by the subflow that lives longest, and its waiting subflows by the MPTCP socket.
pub(crate) fn settle(msk: &mut SocketReport, subflows: &mut [SocketReport]) {
    let held = msk.outcome == Outcome::Held;
    let there = msk.state.is_some();
    for subflow in subflows.iter_mut() {
        if held || (there && is_waiting(subflow)) {
            take_over(subflow, msk);
        }
    }
    let longest = subflows.iter().max_by(|one, other| by_life(one, other));
    if let Some(longest) = longest.filter(|_| !held) {
        take_over(msk, longest);
        if !is_waiting(longest) {
            msk.state = longest.state;
        }
    }
}

/// An orphan in a state that only an MPTCP socket keeps it in.
fn is_waiting(subflow: &SocketReport) -> bool {
    subflow.state.is_some_and(|state| leftover(state).is_none())
}

fn take_over(report: &mut SocketReport, from: &SocketReport) {
    report.outcome = from.outcome;
    report.why = from.why;
    report.freedom = from.freedom;
}

/// What is there lives longer than what is gone; of two that are there, one without an end does.
fn by_life(one: &SocketReport, other: &SocketReport) -> Ordering {
    let there = |report: &SocketReport| match report.outcome {
        Outcome::Reset | Outcome::Closed => 0,
        Outcome::Unknown => 1,
        _ => 2,
    };
    there(one)
        .cmp(&there(other))
        .then_with(|| is_waiting(one).cmp(&is_waiting(other)))
        .then_with(|| end(one.freedom).cmp(&end(other.freedom)))
        .then_with(|| last_change(one).cmp(&last_change(other)))
}

fn end(freedom: Freedom) -> Timestamp {
    freedom.latest().or(freedom.at()).unwrap_or(Timestamp::MAX)
}

fn last_change(report: &SocketReport) -> Option<Timestamp> {
    report.socket.transitions.last().map(Transition::time)
}

#[cfg(test)]
#[path = "mptcp_tests.rs"]
mod tests;
