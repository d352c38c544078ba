//! What became of a socket, and why.
//!
//! The rows are those of `__tcp_close` (net/ipv4/tcp.c) and of the softirq that ends orphans (net/ipv4/tcp_input.c,
//! `tcp_rcv_state_process`). Their order follows the kernel: unreadable data comes before SO_LINGER 0.

use std::time::Duration;

use crate::observed::{Linger, Protocol, ResetReason, Sighting, Socket, State, Timer};
use crate::verdict::join::Sight;
use crate::verdict::{Holder, How, Outcome, Why};

/// The shortest time after which a FIN is retransmitted (TCP_RTO_MIN).
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(200);

/// Decides one socket. `holders` are the descriptors that lead to it; `unreadable` says that there are processes whose
/// descriptors could not be read.
pub(crate) fn decide(
    socket: &Socket,
    sight: Sight<'_>,
    holders: &[Holder],
    unreadable: bool,
) -> (Outcome, Why) {
    match sight {
        Sight::Seen(_, sighting) if sighting.inode != 0 => (Outcome::Held, held_why(holders, unreadable)),
        Sight::Seen(_, sighting) => match leftover(sighting.state) {
            Some(outcome) => (outcome, leftover_why(socket, sighting)),
            None => (Outcome::Unknown, Why::Unknown),
        },
        // Before 6.8, sock_diag does not show a socket that is bound only; /proc proves that it is held.
        Sight::Gone | Sight::Unreachable | Sight::Refused if !holders.is_empty() => {
            (Outcome::Held, held_why(holders, unreadable))
        }
        _ if unreadable && is_shown_by_descriptors_only(socket) => (Outcome::Unknown, Why::Unknown),
        Sight::Gone => match Ending::of(socket) {
            Ending::Reset(why) => (Outcome::Reset, why),
            Ending::Closed(why) => (Outcome::Closed, why),
            // A time-wait was due and is not there: an RST of either side, a recycled address or a full
            // table took it, and nothing tells which.
            Ending::TimeWait => (Outcome::Closed, Why::Unknown),
            // Its end was not seen, but a listener has only one.
            Ending::NotSeen if socket.last_state() == State::Listen => (Outcome::Closed, Why::Listener),
            Ending::NotSeen => (Outcome::Unknown, Why::Unknown),
        },
        Sight::Unreachable | Sight::Refused => match Ending::of(socket) {
            Ending::Reset(why) => (Outcome::Reset, why),
            Ending::Closed(why) => (Outcome::Closed, why),
            Ending::TimeWait | Ending::NotSeen => (Outcome::Unknown, Why::NetnsUnreachable),
        },
    }
}

/// sock_diag does not show a socket that has no connection, or before 6.8 none that is bound only. Somebody else had this
/// one, or that is not known.
fn is_shown_by_descriptors_only(socket: &Socket) -> bool {
    socket.last_state() == State::Close && socket.transitions.is_empty() && socket.may_be_shared()
}

/// The leftover of that state, where it is one.
pub(crate) const fn leftover(state: State) -> Option<Outcome> {
    match state {
        State::TimeWait => Some(Outcome::TimeWait),
        State::FinWait2 => Some(Outcome::FinWait2),
        State::FinWait1 => Some(Outcome::FinWait1),
        State::Closing => Some(Outcome::Closing),
        State::LastAck => Some(Outcome::LastAck),
        _ => None,
    }
}

/// How a socket ended, as far as its transitions and resets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Reset(Why),
    Closed(Why),
    /// By a time-wait mini socket, or by what took its place.
    TimeWait,
    /// Its end was not seen.
    NotSeen,
}

impl Ending {
    pub(crate) fn of(socket: &Socket) -> Self {
        let closed_from = socket
            .transitions
            .last()
            .filter(|last| last.to == State::Close)
            .map(|last| last.from);
        // A reset is sent in the name of a listener, or of a connecting socket, without ending it.
        match closed_from {
            Some(State::Listen) => return Self::Closed(Why::Listener),
            None if socket.last_state() == State::Listen => return Self::NotSeen,
            Some(State::SynSent) if socket.reset_received.is_none() => {
                return Self::Closed(Why::NeverConnected);
            }
            _ => {}
        }
        if let Some(why) = reset_why(socket) {
            return Self::Reset(why);
        }
        match closed_from {
            None if socket.last_state() != State::Close => Self::NotSeen,
            None if socket.remote.is_none() => Self::Closed(Why::NeverConnected),
            None => Self::Closed(Why::EndedBefore),
            Some(from) if closed_at_once(socket).is_some() => {
                if socket.repair {
                    Self::Closed(Why::Repair)
                } else if lingers_zero(socket) {
                    Self::Closed(Why::LingerZero)
                } else if from == State::LastAck {
                    Self::Closed(Why::PeerClosedFirst)
                } else if matches!(from, State::FinWait2 | State::Closing) {
                    Self::time_wait(socket)
                } else if unanswered(socket) {
                    Self::Closed(Why::PeerUnreachable)
                } else {
                    Self::Closed(Why::Unknown)
                }
            }
            Some(State::FinWait2 | State::Closing) => Self::time_wait(socket),
            Some(State::FinWait1) if unanswered(socket) => Self::Closed(Why::PeerUnreachable),
            Some(_) => Self::Closed(usual_why(socket)),
        }
    }

    /// An MPTCP socket has no time-wait of its own: its subflows have them.
    fn time_wait(socket: &Socket) -> Self {
        match socket.protocol {
            Protocol::Tcp => Self::TimeWait,
            Protocol::Mptcp => Self::Closed(usual_why(socket)),
        }
    }
}

/// The state from which close() took it to CLOSE without another in between; a FIN_WAIT1 and what follows it
/// is one only if it was so at the death already.
fn closed_at_once(socket: &Socket) -> Option<State> {
    let last = socket.transitions.last().filter(|last| last.to == State::Close)?;
    let first = socket.transitions.len() == 1 && !socket.transitions_truncated;
    (first || leftover(last.from).is_none()).then_some(last.from)
}

fn lingers_zero(socket: &Socket) -> bool {
    socket.linger == Some(Linger { seconds: 0 })
}

/// It left FIN_WAIT1 without an answer, after a time in which the FIN was retransmitted.
fn unanswered(socket: &Socket) -> bool {
    let Some(last) = socket.transitions.last() else {
        return false;
    };
    last.from == State::FinWait1
        && socket
            .entered(State::FinWait1)
            .and_then(|entered| Duration::try_from(last.time().duration_since(entered)).ok())
            .is_some_and(|waited| waited >= FIRST_RETRANSMISSION)
}

/// Why an RST ended it; `None` if none did.
fn reset_why(socket: &Socket) -> Option<Why> {
    match (socket.reset_received, socket.reset_sent) {
        // The peer's RST is never answered by one: this is `tcp_reset` called for data after close.
        (Some(_), Some(_)) => Some(Why::DataAfterClose),
        (Some(_), None) => Some(Why::PeerReset),
        (None, Some(sent)) => Some(reset_sent_why(socket, sent.reason)),
        (None, None)
            if socket.transitions.is_empty()
                && socket.state_at_death == State::Close
                && socket.reset_before =>
        {
            Some(Why::PeerReset)
        }
        // ESTABLISHED and CLOSE_WAIT end at once by an RST only, and the record may be older than it.
        (None, None) => closed_at_once(socket)
            .filter(|from| !socket.repair && matches!(from, State::Established | State::CloseWait))
            .map(|_| abort_why(socket))
            .filter(|&why| why != Why::Unknown),
    }
}

fn reset_sent_why(socket: &Socket, reason: Option<ResetReason>) -> Why {
    match reason {
        Some(ResetReason::AbortOnClose) => Why::UnreadData,
        Some(ResetReason::AbortOnData) if socket.linger2_negative => Why::Linger2,
        Some(ResetReason::AbortOnData | ResetReason::TimewaitSocket) => Why::DataAfterClose,
        Some(ResetReason::AbortOnLinger) => Why::Linger2,
        Some(ResetReason::AbortOnMemory) => Why::OrphanLimit,
        Some(ResetReason::DisconnectWithData | ResetReason::TcpState) if lingers_zero(socket) => {
            Why::LingerZero
        }
        Some(ResetReason::DisconnectWithData | ResetReason::TcpState | ResetReason::Other) => Why::Unknown,
        // Kernels before 6.10 give no reason.
        None => closed_at_once(socket).map_or_else(
            || orphan_reset_why(socket),
            |from| match (abort_why(socket), from) {
                (Why::Unknown, State::Established | State::SynRecv | State::CloseWait) => Why::UnreadData,
                (Why::Unknown, State::FinWait2) if socket.linger2_negative => Why::Linger2,
                (why, _) => why,
            },
        ),
    }
}

/// Why an orphan was reset by this side, without data after close, where the kernel gives no reason.
fn orphan_reset_why(socket: &Socket) -> Why {
    match socket.transitions.last().map(|last| last.from) {
        Some(State::FinWait2) if socket.linger2_negative => Why::Linger2,
        // The data came with the acknowledgement of the FIN.
        Some(State::FinWait2) => Why::DataAfterClose,
        Some(State::FinWait1 | State::Closing | State::LastAck) => Why::OrphanLimit,
        _ => Why::Unknown,
    }
}

/// Which of the aborts of `__tcp_close` its options and its queue at the death speak for.
fn abort_why(socket: &Socket) -> Why {
    if socket.unread_bytes > 0 {
        Why::UnreadData
    } else if lingers_zero(socket) {
        Why::LingerZero
    } else {
        Why::Unknown
    }
}

fn leftover_why(socket: &Socket, sighting: &Sighting) -> Why {
    let retransmits = sighting.timer == Timer::Retransmit && sighting.retransmits > 0;
    if retransmits && sighting.state != State::FinWait2 {
        Why::PeerUnreachable
    } else {
        usual_why(socket)
    }
}

/// Who began the close that went its usual way.
fn usual_why(socket: &Socket) -> Why {
    let peer_first = |state| matches!(state, State::CloseWait | State::LastAck);
    if peer_first(socket.state_at_death) || socket.transitions.iter().any(|change| peer_first(change.to)) {
        return Why::PeerClosedFirst;
    }
    match socket.state_at_death {
        // After shutdown() and the peer's FIN it is CLOSE, and its time-wait exists beside the open descriptor.
        State::FinWait1 | State::FinWait2 | State::Closing | State::TimeWait | State::Close => {
            Why::ShutdownBefore
        }
        _ => Why::ClosedByKernel,
    }
}

/// A socket that is in nobody's table is the kernel's, unless a table could not be read.
fn held_why(holders: &[Holder], unreadable: bool) -> Why {
    let has = |how| holders.iter().any(|holder| holder.how == Some(how));
    if has(How::Inherited) {
        Why::Inherited
    } else if has(How::Received) {
        Why::PassedOn
    } else if has(How::SharedTable) {
        Why::SharedTable
    } else if holders.is_empty() && !unreadable {
        Why::InKernel
    } else {
        Why::Unknown
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
