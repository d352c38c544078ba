//! From evidence to a report.

use std::collections::{BTreeSet, HashSet};

use crate::advice::{Facts, advise};
use crate::expiry::Freedom;
use crate::observed::{BlindSpot, Evidence, Protocol, Snapshot, Socket, State};
use crate::port::{ephemeral_count, restart_decision};
use crate::verdict::decide::Ending;
use crate::verdict::join::Sight;
use crate::verdict::judge::{Judge, Sights};
use crate::verdict::{Leftover, Outcome, Report, SocketReport, Summary, Why, left_while_alive, overflow};

/// Decides what became of each socket, why, and when it is free. Linear in the number of sockets and sightings.
#[must_use]
pub fn examine(evidence: Evidence) -> Report {
    let Evidence {
        time,
        process,
        death,
        sockets,
        closed_alive,
        snapshots,
        holdings,
        unreadable,
        io_uring,
        blind,
        lost,
        hz,
    } = evidence;

    let sights = Sights::find(&sockets, &closed_alive, &snapshots);
    let live: Vec<&Socket> = sights.closed_alive.iter().map(|(socket, _)| *socket).collect();
    let unseen: Vec<&Socket> = sights
        .closed_alive
        .iter()
        .filter(|(socket, sight)| matches!(sight, Sight::Refused) && may_be_left(socket))
        .map(|(socket, _)| *socket)
        .collect();
    let leftovers: Vec<(&Socket, Leftover)> = sights
        .closed_alive
        .iter()
        .filter_map(|(socket, sight)| Some((*socket, follow_live(process.pid, socket, *sight, hz)?)))
        .collect();
    let recorded = sockets.iter().map(Box::as_ref);
    let listeners: Vec<&Socket> = recorded
        .chain(live.iter().copied())
        .filter(|socket| socket.state_at_death == State::Listen)
        .collect();
    let listening: HashSet<(u32, u16)> = listeners
        .iter()
        .map(|listener| (listener.netns, listener.local.port()))
        .collect();
    let left_while_alive = left_while_alive::group(&leftovers, &unseen, listeners.into_iter(), time);
    let closed_alive = leftovers.iter().map(|(_, left)| left.clone()).collect();

    let looked = sockets.iter().zip(&sights.sockets);
    let gone: BTreeSet<u32> = looked
        .filter(|(_, sight)| matches!(sight, Sight::Unreachable))
        .map(|(socket, _)| socket.netns)
        .collect();
    let incomplete = sockets
        .iter()
        .filter(|socket| socket.protocol == Protocol::Mptcp && !socket.subflows_complete)
        .count();
    let mut verdicts = Judge::new(&holdings, unreadable > 0, time, hz).verdicts(&sockets, &sights);
    let doubtful = overflow::explain(&sockets, &mut verdicts, &snapshots);
    let mut sockets: Vec<SocketReport> = sockets
        .into_iter()
        .zip(verdicts)
        .map(|(socket, verdict)| SocketReport::new(socket, verdict))
        .collect();
    // No two have a descriptor in common.
    sockets.sort_unstable_by_key(|report| report.socket.fds.first().copied());
    let mut blind = blind_spots(blind, io_uring, &gone, incomplete);
    blind.extend(snapshots.iter().filter_map(not_looked_into));
    if doubtful > 0 {
        blind.push(BlindSpot::TimeWaitsMissing { sockets: doubtful });
    }
    let is_nobodys = |report: &SocketReport| match report.outcome {
        Outcome::Held => report.holders.is_empty(),
        Outcome::Unknown => report.socket.last_state() == State::Close && report.why == Why::Unknown,
        _ => false,
    };
    if unreadable > 0 && sockets.iter().any(is_nobodys) {
        blind.push(BlindSpot::DescriptorsUnreadable {
            processes: unreadable,
        });
    }

    let restart = restart_decision::of_report(&sockets, &live, &snapshots, hz);
    let mut report = Report {
        time,
        process,
        death,
        incident: None,
        summary: Summary::of(&sockets),
        sockets,
        left_while_alive,
        restart,
        ephemeral: Vec::new(),
        advice: Vec::new(),
        blind,
        lost,
        closed_alive,
    };
    let (ephemeral, is_unknown) = ephemeral_count::count(&report, &listening, &snapshots);
    report.ephemeral = ephemeral;
    if is_unknown {
        report.blind.push(BlindSpot::EphemeralUncounted);
    }
    report.advice = advise(&Facts {
        report: &report,
        closed: &live,
        live: &leftovers,
        listening: &listening,
        snapshots: &snapshots,
    });
    report
}

/// What a record of the living process still leaves, if anything.
fn follow_live(pid: u32, socket: &Socket, sight: Sight<'_>, hz: u32) -> Option<Leftover> {
    let Sight::Seen(snapshot, sighting) = sight else {
        return None;
    };
    let fin_wait2_since = socket.fin_wait2_since();
    left_while_alive::is_leftover(sighting.state, sighting.inode).then(|| Leftover {
        pid,
        netns: socket.netns,
        protocol: socket.protocol,
        local: socket.local,
        remote: socket.remote,
        cookie: sighting.cookie,
        state: sighting.state,
        fin_wait2_since,
        freedom: Freedom::of(sighting, snapshot, hz, fin_wait2_since),
    })
}

/// What the process closed itself may be there still, as far as was seen of its end.
fn may_be_left(socket: &Socket) -> bool {
    matches!(Ending::of(socket), Ending::TimeWait | Ending::NotSeen)
}

/// That a namespace may not be looked into, and why.
fn not_looked_into(snapshot: &Snapshot) -> Option<BlindSpot> {
    let why = snapshot.refused.clone()?;
    let netns = snapshot.netns;
    Some(BlindSpot::NetnsRefused { netns, why })
}

fn blind_spots(
    mut blind: Vec<BlindSpot>,
    io_uring: bool,
    gone: &BTreeSet<u32>,
    incomplete: usize,
) -> Vec<BlindSpot> {
    if incomplete > 0 {
        blind.push(BlindSpot::SubflowsSkipped { sockets: incomplete });
    }
    if io_uring {
        blind.push(BlindSpot::IoUring);
    }
    blind.extend(gone.iter().map(|netns| BlindSpot::NetnsGone { netns: *netns }));
    blind
}

impl Summary {
    /// Counts the outcomes.
    #[must_use]
    pub fn of(sockets: &[SocketReport]) -> Self {
        let mut summary = Self::default();
        for socket in sockets {
            *summary.count(socket.outcome) += 1;
        }
        summary
    }

    pub(crate) fn count(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::TimeWait => &mut self.time_wait,
            Outcome::FinWait2 => &mut self.fin_wait2,
            Outcome::FinWait1 => &mut self.fin_wait1,
            Outcome::Closing => &mut self.closing,
            Outcome::LastAck => &mut self.last_ack,
            Outcome::Reset => &mut self.reset,
            Outcome::Closed => &mut self.closed,
            Outcome::Held => &mut self.held,
            Outcome::Unknown => &mut self.unknown,
        }
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.leftovers() + self.reset + self.closed + self.held + self.unknown
    }

    /// What nobody holds and the kernel still keeps.
    #[must_use]
    pub const fn leftovers(&self) -> u64 {
        self.time_wait + self.fin_wait2 + self.fin_wait1 + self.closing + self.last_ack
    }
}

impl Report {
    /// True when something was left behind or is still held, by the death or while the process lived.
    #[must_use]
    pub fn left_something(&self) -> bool {
        self.summary.leftovers() + self.summary.held > 0 || !self.closed_alive.is_empty()
    }
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
