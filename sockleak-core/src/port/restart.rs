//! Whether a restart can have its port again: `bind()` with each combination of options, what is in its way, and
//! from when on it succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::observed::{Snapshot, Socket, State};
use crate::port::{Answer, Occupant, Request, Reuse, in_the_way, occupants};
use crate::verdict::SocketReport;

/// An address and port that a process listens on or is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Inode of the network namespace.
    pub netns: u32,
    pub address: IpAddr,
    pub port: u16,
    /// `None` for IPv4.
    pub v6only: Option<bool>,
    /// The uid of the process that binds; `None` when it is that of whoever had the port before.
    pub uid: Option<u32>,
}

impl Endpoint {
    /// Where that socket listened or was bound to, if it did nothing else.
    #[must_use]
    pub fn of(socket: &Socket) -> Option<Self> {
        let bound = matches!(
            socket.state_at_death,
            State::Listen | State::Close | State::BoundInactive
        );
        let port = socket.local.port();
        (bound && socket.remote.is_none() && port != 0).then_some(Self {
            netns: socket.netns,
            address: socket.local.ip(),
            port,
            v6only: socket.v6only,
            uid: socket.uid,
        })
    }
}

/// What a restart there meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    pub endpoint: Endpoint,
    /// One for each of [`Reuse::ALL`], in that order.
    pub verdicts: Vec<BindVerdict>,
}

/// What `bind()`, and then `listen()`, say with these options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindVerdict {
    pub reuse: Reuse,
    pub answer: Answer,
    /// What is in the way, or may be: each socket counts once.
    pub blocked_by: Vec<Blocker>,
    /// From when on it succeeds, at the earliest; `None` when it does now, or where no moment can be told.
    pub free_at: Option<Timestamp>,
    /// At the latest; `None` as for `free_at`.
    pub free_at_latest: Option<Timestamp>,
}

impl BindVerdict {
    /// Nothing is seen in its way, and not everything could be seen.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.answer == Answer::Unknown && self.blocked_by.is_empty()
    }

    /// How many of each kind are in the way, or may be.
    #[must_use]
    pub fn obstacles(&self) -> BTreeMap<Obstacle, u64> {
        let mut counts = BTreeMap::new();
        for blocker in &self.blocked_by {
            *counts.entry(blocker.kind).or_default() += blocker.count;
        }
        counts
    }
}

/// Sockets in the way of a `bind()` that are of one kind, in one state, and of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub kind: Obstacle,
    pub state: State,
    pub count: u64,
    /// Where a socket has several, the first of them; `None` where none is known.
    pub holder: Option<BlockingProcess>,
}

/// A process that has what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingProcess {
    pub pid: u32,
    pub comm: String,
    /// `None` where it has several of these sockets.
    pub fd: Option<u32>,
}

impl Blocker {
    fn of(occupant: &Occupant) -> Self {
        Self {
            kind: Obstacle::of(occupant),
            state: occupant.owner.state,
            count: 1,
            holder: occupant.holder.as_ref().map(|holder| BlockingProcess {
                pid: holder.pid,
                comm: holder.comm.clone(),
                fd: Some(holder.fd),
            }),
        }
    }

    fn add_another(&mut self) {
        self.count += 1;
        if let Some(holder) = &mut self.holder {
            holder.fd = None;
        }
    }
}

/// What is in the way of a `bind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "blocked_by_kind")
)]
pub enum Obstacle {
    /// A socket that listens.
    Listener,
    /// A connection that somebody has, or that waits in a listener's queue.
    Connection,
    /// A socket that is bound and does nothing else.
    Bound,
    TimeWait,
    FinWait2,
    FinWait1,
    Closing,
    LastAck,
}

impl Obstacle {
    fn of(occupant: &Occupant) -> Self {
        match occupant.owner.state {
            State::Listen => Self::Listener,
            State::Close | State::BoundInactive => Self::Bound,
            _ if occupant.held() => Self::Connection,
            State::TimeWait => Self::TimeWait,
            State::FinWait2 => Self::FinWait2,
            State::FinWait1 => Self::FinWait1,
            State::Closing => Self::Closing,
            State::LastAck => Self::LastAck,
            State::Established | State::SynSent | State::SynRecv | State::CloseWait | State::NewSynRecv => {
                Self::Connection
            }
        }
    }

    /// The word for it in JSON and text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::Bound => "bound",
            Self::TimeWait => "time_wait",
            Self::FinWait2 => "fin_wait2",
            Self::FinWait1 => "fin_wait1",
            Self::Closing => "closing",
            Self::LastAck => "last_ack",
        }
    }
}

/// A restart of the process whose sockets these are: wherever it listened or was bound, in the namespaces that are
/// there.
pub(crate) fn of_report(
    sockets: &[SocketReport],
    live: &[&Socket],
    snapshots: &[Snapshot],
    hz: u32,
) -> Vec<Restart> {
    let endpoints: BTreeSet<Endpoint> = sockets
        .iter()
        .filter_map(|report| Endpoint::of(&report.socket))
        .collect();
    let looks = snapshots
        .iter()
        .filter(|look| look.sightings.is_some() || look.refused.is_some());
    looks
        .flat_map(|look| {
            let here: Vec<Endpoint> = endpoints
                .iter()
                .copied()
                .filter(|endpoint| endpoint.netns == look.netns)
                .collect();
            let ports: BTreeSet<u16> = here.iter().map(|endpoint| endpoint.port).collect();
            let mut occupants = occupants(look, &ports, sockets, live, hz);
            let port = |occupant: &Occupant| occupant.owner.local.port();
            occupants.sort_unstable_by_key(port);
            let all_seen = look.shows_bound && look.refused.is_none();
            here.into_iter().map(move |endpoint| {
                let first = occupants.partition_point(|occupant| port(occupant) < endpoint.port);
                let end = occupants.partition_point(|occupant| port(occupant) <= endpoint.port);
                Restart::decide(endpoint, &occupants[first..end], all_seen)
            })
        })
        .collect()
}

impl Restart {
    /// Decides for every combination of options. The occupants are all of that port in that namespace, or if not all were
    /// seen, nothing is said to succeed.
    #[must_use]
    pub fn decide(endpoint: Endpoint, occupants: &[Occupant], all_seen: bool) -> Self {
        let verdicts = Reuse::ALL
            .into_iter()
            .map(|reuse| {
                let mut verdict = BindVerdict::decide(endpoint, reuse, occupants);
                if verdict.answer == Answer::Ok && !all_seen {
                    verdict.answer = Answer::Unknown;
                }
                verdict
            })
            .collect();
        Self { endpoint, verdicts }
    }

    /// The verdict for these options.
    #[must_use]
    pub fn verdict(&self, reuse: Reuse) -> Option<&BindVerdict> {
        self.verdicts.iter().find(|verdict| verdict.reuse == reuse)
    }
}

impl BindVerdict {
    fn decide(endpoint: Endpoint, reuse: Reuse, occupants: &[Occupant]) -> Self {
        let request = Request {
            address: endpoint.address,
            v6only: endpoint.v6only.unwrap_or_default(),
            reuse,
            uid: endpoint.uid,
        };
        let (answer, blockers) = in_the_way(&request, occupants.iter().map(|occupant| &*occupant.owner));
        let blockers = || blockers.iter().filter_map(|index| occupants.get(*index));
        let mut blocked_by = BTreeMap::new();
        for blocker in blockers() {
            let pid = blocker.holder.as_ref().map(|holder| holder.pid);
            blocked_by
                .entry((Obstacle::of(blocker), blocker.owner.state, pid))
                .and_modify(Blocker::add_another)
                .or_insert_with(|| Blocker::of(blocker));
        }
        // The last of them decides; where one has no end, the whole has none.
        let last = |moment: fn(&Occupant) -> Option<Timestamp>| {
            let moments: Option<Vec<Timestamp>> = blockers().map(moment).collect();
            moments?.into_iter().max()
        };
        Self {
            reuse,
            answer,
            blocked_by: blocked_by.into_values().collect(),
            free_at: last(|blocker| blocker.freedom.at()),
            free_at_latest: last(|blocker| blocker.freedom.latest()),
        }
    }
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
