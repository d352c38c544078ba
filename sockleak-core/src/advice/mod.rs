//! What to change in the program or its system, chosen from what this death left.
//!
//! A piece of advice is given only where a fact of the report speaks for it, and it says which. The words for both are
//! chosen where they are printed.

mod closing;
mod id;
mod listeners;
mod peers;
mod piece;
mod ports;
mod survivors;

use std::collections::HashSet;

use jiff::Timestamp;

use crate::expiry::Freedom;
use crate::observed::{Snapshot, Socket, State};
use crate::verdict::decide::leftover;
use crate::verdict::{Leftover, Outcome, Report, SocketReport};

pub use id::AdviceId;
use piece::Grounds;
pub use piece::{Advice, Fact};

/// What advice is chosen from.
pub(crate) struct Facts<'a> {
    pub report: &'a Report,
    /// What the process closed itself.
    pub closed: &'a [&'a Socket],
    /// Those of them that left something.
    pub live: &'a [(&'a Socket, Leftover)],
    /// The namespaces and ports that it listened on.
    pub listening: &'a HashSet<(u32, u16)>,
    pub snapshots: &'a [Snapshot],
}

/// The advice for one death, what a restart needs first.
pub(crate) fn advise(facts: &Facts<'_>) -> Vec<Advice> {
    let piece = |id| {
        Some(Advice {
            id,
            evidence: grounds(id, facts)?,
        })
    };
    AdviceId::ALL.into_iter().filter_map(piece).collect()
}

/// The evidence for that advice; `None` where nothing speaks for it.
fn grounds(id: AdviceId, facts: &Facts<'_>) -> Option<Grounds> {
    match id {
        AdviceId::LeftoverWithoutReuseaddr => listeners::leftover_without_reuseaddr(facts),
        AdviceId::ListenerWithoutReuseaddr => listeners::listener_without_reuseaddr(facts),
        AdviceId::InheritedListener => survivors::inherited_listener(facts),
        AdviceId::ReuseportSurvivor => survivors::reuseport_survivor(facts),
        AdviceId::CoreDumpHeldPort => survivors::core_dump_held_port(facts),
        AdviceId::EphemeralExhaustion => ports::ephemeral_exhaustion(facts),
        AdviceId::TimeWaitChurn => ports::time_wait_churn(facts),
        AdviceId::FixedPortInEphemeralRange => ports::fixed_port_in_ephemeral_range(facts),
        AdviceId::ClosingSide => closing::closing_side(facts),
        AdviceId::UnreadDataReset => closing::unread_data_reset(facts),
        AdviceId::LingerZero => closing::linger_zero(facts),
        AdviceId::UnreachablePeer => peers::unreachable_peer(facts),
        AdviceId::ZeroWindowOrphan => peers::zero_window_orphan(facts),
    }
}

impl<'a> Facts<'a> {
    fn sockets(&self) -> impl Iterator<Item = &'a SocketReport> {
        self.report.sockets.iter()
    }

    fn listeners(&self) -> impl Iterator<Item = &'a SocketReport> {
        self.sockets()
            .filter(|report| report.socket.state_at_death == State::Listen)
    }

    /// Those of the inventory, and those that the process closed itself: an exception that unwinds does so.
    fn every_listener(&self) -> impl Iterator<Item = &'a Socket> {
        let closed = self.closed.iter().copied();
        self.listeners()
            .map(|report| report.socket.as_ref())
            .chain(closed.filter(|socket| socket.state_at_death == State::Listen))
    }

    /// What nobody holds and the kernel still keeps, by the death or before.
    fn leftovers(&self) -> impl Iterator<Item = Left<'a>> {
        let of_the_death = self.sockets().map(|report| Left {
            socket: &report.socket,
            outcome: report.outcome,
            freedom: &report.freedom,
        });
        let before = self.live.iter().map(|(socket, left)| Left {
            socket,
            outcome: left.outcome(),
            freedom: &left.freedom,
        });
        of_the_death
            .chain(before)
            .filter(|left| is_leftover(left.outcome))
    }

    /// It is a connection that the process accepted.
    fn is_accepted(&self, socket: &Socket) -> bool {
        self.listening.contains(&(socket.netns, socket.local.port()))
    }
}

/// A leftover, whether it was made by the death or before.
struct Left<'a> {
    socket: &'a Socket,
    outcome: Outcome,
    freedom: &'a Freedom,
}

fn is_leftover(outcome: Outcome) -> bool {
    State::ALL
        .into_iter()
        .any(|state| leftover(state) == Some(outcome))
}

/// The evidence, if there is anything to speak for the advice.
fn given(count: u64, evidence: Grounds) -> Option<Grounds> {
    (count > 0).then_some(evidence)
}

/// When the last of them is free; `None` if one has no moment.
fn last_free<'a>(freedoms: impl Iterator<Item = &'a Freedom>) -> Fact {
    let moments: Option<Vec<Timestamp>> = freedoms.map(|freedom| freedom.at()).collect();
    Fact::FreeAt(moments.and_then(|moments| moments.into_iter().max()))
}

/// Their local ports, each once.
fn local_ports<'a>(sockets: impl Iterator<Item = &'a Socket>) -> Fact {
    let mut ports: Vec<u16> = sockets.map(|socket| socket.local.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    Fact::Ports(ports)
}

#[cfg(test)]
mod tests;
