//! From evidence to a report.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::advice::{Facts, advise};
use crate::expiry::Freedom;
use crate::observed::{BlindSpot, Death, Holding, Process, Protocol, Relation, Snapshot, Socket, State};
use crate::port::{ephemeral, restart};
use crate::verdict::decide::{Ending, decide};
use crate::verdict::join::{Sight, join};
use crate::verdict::{
    Follower, FreeRule, Holder, How, Lost, Outcome, Report, SocketReport, Summary, Why, left_while_alive,
    mptcp, overflow,
};

/// All that was seen of one process.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// When sock_diag was read last; the report holds at that moment.
    pub time: Timestamp,
    pub process: Process,
    /// `None` while the process lives.
    pub death: Option<Death>,
    /// The inventory: the sockets of its fd table when it died ([`super::Origin::Inventory`]).
    pub sockets: Vec<Box<Socket>>,
    /// What it closed or shut down itself while it was watched ([`super::Origin::Live`]).
    pub live: Vec<Box<Socket>>,
    /// One look at each namespace that any of these sockets is in.
    pub snapshots: Vec<Snapshot>,
    /// The descriptors of other processes that lead to any of these sockets.
    pub holdings: Vec<Holding>,
    /// Living processes whose descriptors could not be read.
    pub unread: usize,
    /// A thread of the process used io_uring.
    pub io_uring: bool,
    /// What could not be seen on this kernel, as sentences.
    pub blind: Vec<BlindSpot>,
    pub lost: Lost,
    /// CONFIG_HZ, for the slack of the timer wheel.
    pub hz: u32,
}

/// Decides what became of each socket, why, and when it is free. Linear in the number of sockets and sightings.
#[must_use]
pub fn examine(evidence: Evidence) -> Report {
    let Evidence {
        time,
        process,
        death,
        sockets,
        live,
        snapshots,
        holdings,
        unread,
        io_uring,
        blind,
        lost,
        hz,
    } = evidence;

    let subflows = || sockets.iter().flat_map(|socket| &socket.subflows);
    let recorded = || sockets.iter().map(Box::as_ref).chain(subflows());
    let live = left_while_alive::beside_inventory(&live, recorded());
    let all: Vec<&Socket> = recorded().chain(live.iter().copied()).collect();
    let mut sights = join(&all, &snapshots);
    let live_sights = sights.split_off(sights.len() - live.len());
    let mut subflow_sights = sights.split_off(sockets.len()).into_iter();

    let unseen: Vec<&Socket> = live
        .iter()
        .zip(&live_sights)
        .filter(|(socket, sight)| matches!(sight, Sight::Refused) && may_be_left(socket))
        .map(|(socket, _)| *socket)
        .collect();
    let leftovers: Vec<(&Socket, Follower)> = live
        .iter()
        .zip(live_sights)
        .filter_map(|(&socket, sight)| Some((socket, follow_live(process.pid, socket, sight, hz)?)))
        .collect();
    let listeners = all
        .iter()
        .copied()
        .filter(|socket| socket.state_at_death == State::Listen);
    let listening: HashSet<(u32, u16)> = listeners
        .clone()
        .map(|listener| (listener.netns, listener.local.port()))
        .collect();
    let left_while_alive = left_while_alive::group(&leftovers, &unseen, listeners, time);
    let live_leftovers = leftovers.iter().map(|(_, left)| left.clone()).collect();

    let unreachable = sights.iter().any(|sight| matches!(sight, Sight::Unreachable));
    let incomplete = sockets
        .iter()
        .filter(|socket| socket.protocol == Protocol::Mptcp && !socket.subflows_complete)
        .count();
    let mut holders = holders_by_inode(holdings);
    let mut sockets: Vec<SocketReport> = sockets
        .into_iter()
        .zip(sights)
        .map(|(socket, sight)| {
            let inode = match sight {
                Sight::Seen(_, sighting) if sighting.inode != 0 => Some(sighting.inode),
                _ => socket.inode,
            };
            let mut holders = inode.and_then(|inode| holders.remove(&inode)).unwrap_or_default();
            doubt_other_descriptors(&mut holders, &socket.fds);
            recognize_shared_tables(&mut holders, &socket);
            let subflow_sights: Vec<_> = subflow_sights.by_ref().take(socket.subflows.len()).collect();
            let mut subflows = report_subflows(&socket, &subflow_sights, time, hz);
            let mut report = report_socket(socket, sight, holders, unread > 0, time, hz);
            mptcp::settle(&mut report, &mut subflows);
            report.subflows = subflows;
            report
        })
        .collect();
    // No two have a descriptor in common.
    sockets.sort_unstable_by_key(|report| report.socket.fds.first().copied());
    let mut blind = blind_spots(blind, io_uring, unreachable, incomplete);
    blind.extend(snapshots.iter().filter_map(not_looked_into));
    let doubtful = overflow::explain(&mut sockets, &snapshots);
    if doubtful > 0 {
        blind.push(BlindSpot::TimeWaitsMissing { sockets: doubtful });
    }
    let is_nobodys = |report: &SocketReport| match report.outcome {
        Outcome::Held => report.holders.is_empty(),
        Outcome::Unknown => report.socket.last_state() == State::Close && report.why == Why::Unknown,
        _ => false,
    };
    if unread > 0 && sockets.iter().any(is_nobodys) {
        blind.push(BlindSpot::DescriptorsUnreadable { processes: unread });
    }

    let restart = restart::of_report(&sockets, &live, &snapshots, hz);
    let mut report = Report {
        time,
        process,
        death,
        summary: Summary::of(&sockets),
        sockets,
        left_while_alive,
        restart,
        ephemeral: Vec::new(),
        advice: Vec::new(),
        blind,
        lost,
        live_leftovers,
    };
    let (ephemeral, is_unknown) = ephemeral::count(&report, &listening, &snapshots);
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

fn report_socket(
    socket: Box<Socket>,
    sight: Sight<'_>,
    holders: Vec<Holder>,
    unread: bool,
    time: Timestamp,
    hz: u32,
) -> SocketReport {
    let (outcome, why) = decide(&socket, sight, &holders, unread);
    let freedom = match (outcome, sight) {
        (Outcome::Held, _) => Freedom::open(FreeRule::Holder),
        (Outcome::Reset | Outcome::Closed, _) => Freedom::now(time),
        (_, Sight::Seen(snapshot, sighting)) => Freedom::of(sighting, snapshot, hz, socket.fin_wait2_since()),
        // Mini sockets end with their namespace; full orphans keep it.
        (_, Sight::Unreachable) if Ending::of(&socket) == Ending::TimeWait => {
            Freedom::open(FreeRule::NetnsGone)
        }
        _ => Freedom::open(FreeRule::Unknown),
    };
    let (state, cookie) = match sight {
        Sight::Seen(_, sighting) => (Some(sighting.state), Some(sighting.cookie)),
        _ => (None, None),
    };
    SocketReport {
        seen_cookie: cookie,
        socket,
        outcome,
        state,
        why,
        // Descriptors found by an inode that was given to another socket since are nobody's concern here.
        holders: if outcome == Outcome::Held {
            holders
        } else {
            Vec::new()
        },
        freedom,
        subflows: Vec::new(),
    }
}

/// What became of the subflows, each by itself.
fn report_subflows(msk: &Socket, sights: &[Sight<'_>], time: Timestamp, hz: u32) -> Vec<SocketReport> {
    let one = |(subflow, sight): (&Socket, &Sight<'_>)| match *sight {
        Sight::Seen(snapshot, sighting) => {
            let sighting = mptcp::without_file(sighting);
            let sight = Sight::Seen(snapshot, &sighting);
            report_socket(subflow.clone().into(), sight, Vec::new(), false, time, hz)
        }
        unseen => report_socket(subflow.clone().into(), unseen, Vec::new(), false, time, hz),
    };
    msk.subflows.iter().zip(sights).map(one).collect()
}

/// What a record of the living process still leaves, if anything.
fn follow_live(pid: u32, socket: &Socket, sight: Sight<'_>, hz: u32) -> Option<Follower> {
    let Sight::Seen(snapshot, sighting) = sight else {
        return None;
    };
    let fin_wait2_since = socket.fin_wait2_since();
    left_while_alive::is_leftover(sighting.state, sighting.inode).then(|| Follower {
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

fn holders_by_inode(holdings: Vec<Holding>) -> HashMap<u64, Vec<Holder>> {
    let mut holders: HashMap<u64, Vec<Holder>> = HashMap::new();
    for holding in holdings {
        holders.entry(holding.inode).or_default().push(Holder {
            pid: holding.pid,
            comm: holding.comm,
            fd: holding.fd,
            how: match holding.relation {
                Relation::Family => Some(How::Inherited),
                Relation::SharedTable => Some(How::SharedTable),
                Relation::Received => Some(How::Received),
                Relation::Unknown => None,
            },
        });
    }
    for holders in holders.values_mut() {
        holders.sort_unstable_by_key(|holder| (holder.pid, holder.fd));
    }
    holders
}

/// fork() keeps the numbers of descriptors. A relative that has the socket under another number may have got
/// it over a unix socket, or may have moved it after the fork: that was not seen.
fn doubt_other_descriptors(holders: &mut [Holder], fds: &[u32]) {
    for holder in holders {
        if holder.how == Some(How::Inherited) && !fds.contains(&holder.fd) {
            holder.how = None;
        }
    }
}

/// No other table had a reference to the file, so whoever has it under the same number uses the same table.
fn recognize_shared_tables(holders: &mut [Holder], socket: &Socket) {
    if socket
        .references
        .is_none_or(|references| references as usize > socket.fds.len())
    {
        return;
    }
    for holder in holders
        .iter_mut()
        .filter(|holder| socket.fds.contains(&holder.fd))
    {
        holder.how = Some(How::SharedTable);
    }
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
    unreachable: bool,
    incomplete: usize,
) -> Vec<BlindSpot> {
    if incomplete > 0 {
        blind.push(BlindSpot::SubflowsSkipped { sockets: incomplete });
    }
    if io_uring {
        blind.push(BlindSpot::IoUring);
    }
    if unreachable {
        blind.push(BlindSpot::NetnsGone);
    }
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

    fn count(&mut self, outcome: Outcome) -> &mut u64 {
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
        self.summary.leftovers() + self.summary.held > 0 || !self.live_leftovers.is_empty()
    }
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
