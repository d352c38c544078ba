//! What a restart meets, decided from the sockets that have its ports.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::observed::{Snapshot, Socket, State};
use crate::port::{
    Answer, BindVerdict, Blocker, BlockingProcess, Endpoint, Obstacle, Occupant, Request, Restart, Reuse,
    in_the_way, occupants,
};
use crate::verdict::SocketReport;

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
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
