//! What a restart meets, decided from the sockets that have its ports.

use std::collections::{BTreeMap, BTreeSet};

use crate::expiry::LastFree;
use crate::observed::{Snapshot, Socket, State};
use crate::port::{
    Addressing, Answer, BindVerdict, Blocker, BlockingProcess, Device, Endpoint, Obstacle, Occupant, Refusal,
    Request, Restart, Reuse, in_the_way, occupants,
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
            let terms = Terms {
                addressing: &look.addressing,
                all_seen: look.shows_bound && look.refused.is_none(),
                may_have_port: true,
            };
            here.into_iter().map(move |endpoint| {
                let first = occupants.partition_point(|occupant| port(occupant) < endpoint.port);
                let end = occupants.partition_point(|occupant| port(occupant) <= endpoint.port);
                Restart::decide(endpoint, &occupants[first..end], terms)
            })
        })
        .collect()
}

/// What decides beside the sockets that have the port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub addressing: &'a Addressing,
    /// All sockets of the port were seen, or nothing is said to succeed.
    pub all_seen: bool,
    /// The user may have a port of this number.
    pub may_have_port: bool,
}

impl Restart {
    /// Decides for every combination of options. The occupants are all of that port in that namespace.
    #[must_use]
    pub(crate) fn decide(endpoint: Endpoint, occupants: &[Occupant], terms: Terms<'_>) -> Self {
        let device = terms.addressing.device(endpoint.device);
        let user = endpoint.uid.or_else(|| who_has(&endpoint, device, occupants));
        let refusal = terms.refusal(&endpoint);
        let verdicts = Reuse::ALL.into_iter().map(|reuse| {
            if let Some(refusal) = refusal {
                return BindVerdict::refused(reuse, refusal);
            }
            let request = Request {
                address: endpoint.address,
                v6only: endpoint.v6only.unwrap_or_default(),
                reuse,
                device: endpoint.device,
                vrf: device.map_or(0, |device| device.vrf),
                uid: user,
            };
            let mut verdict = BindVerdict::decide(&request, occupants);
            if verdict.answer() == Answer::Ok && !terms.all_seen {
                (verdict.bind, verdict.listen) = (Answer::Unknown, Answer::Unknown);
            }
            verdict
        });
        Self {
            endpoint,
            device: device.map(|device| device.name.clone()),
            user,
            verdicts: verdicts.collect(),
        }
    }

    /// The verdict for these options.
    #[must_use]
    pub fn verdict(&self, reuse: Reuse) -> Option<&BindVerdict> {
        self.verdicts.iter().find(|verdict| verdict.reuse == reuse)
    }
}

/// Who has what is asked for: of all that have the port, one that is in the way of a socket without options, if there is
/// one.
fn who_has(endpoint: &Endpoint, device: Option<&Device>, occupants: &[Occupant]) -> Option<u32> {
    let plain = Request {
        address: endpoint.address,
        v6only: endpoint.v6only.unwrap_or_default(),
        reuse: Reuse::default(),
        device: endpoint.device,
        vrf: device.map_or(0, |device| device.vrf),
        uid: None,
    };
    let tried = in_the_way(&plain, occupants.iter().map(|occupant| &*occupant.owner));
    let blockers = tried.blockers.iter().filter_map(|index| occupants.get(*index));
    user_of(blockers).or_else(|| user_of(occupants.iter()))
}

/// The user of these sockets: whoever listens, or else whoever has another socket. The uid of an orphan is not its owner's on all
/// kernels, but the bucket remembers who shared it.
fn user_of<'a>(occupants: impl Iterator<Item = &'a Occupant> + Clone) -> Option<u32> {
    let owners = || occupants.clone().map(|occupant| &occupant.owner);
    let has_file = || owners().filter(|owner| owner.inode != 0);
    has_file()
        .filter(|owner| owner.state == State::Listen)
        .chain(has_file())
        .find_map(|owner| owner.uid)
        .or_else(|| {
            let mut buckets = owners().filter_map(|owner| owner.bucket);
            let shared = buckets.find(|bucket| bucket.reuse_port || bucket.reuse_port_at.is_some());
            shared.map(|bucket| bucket.uid)
        })
}

impl Terms<'_> {
    /// What `bind()` says whatever has the port. For IPv6 it asks for the right to the port first (`__inet6_bind`,
    /// net/ipv6/af_inet6.c), for IPv4 last (`__inet_bind`, net/ipv4/af_inet.c).
    fn refusal(&self, endpoint: &Endpoint) -> Option<Answer> {
        let permission = (!self.may_have_port).then_some(Answer::Permission);
        let address = match self.addressing.refusal(endpoint.local_address()) {
            Some(Refusal::NotAvailable) if endpoint.nonlocal => None,
            Some(Refusal::NotAvailable | Refusal::NoDevice) => Some(Answer::NotAvailable),
            Some(Refusal::Invalid) => Some(Answer::Invalid),
            None => None,
        };
        if endpoint.address.is_ipv6() {
            permission.or(address)
        } else {
            address.or(permission)
        }
    }
}

impl BindVerdict {
    /// Nothing has to be in the way for that.
    const fn refused(reuse: Reuse, answer: Answer) -> Self {
        Self {
            reuse,
            bind: answer,
            listen: answer,
            blocked_by: Vec::new(),
            free_at: None,
            free_at_latest: None,
            earlier_by: None,
        }
    }

    fn decide(request: &Request, occupants: &[Occupant]) -> Self {
        let tried = in_the_way(request, occupants.iter().map(|occupant| &*occupant.owner));
        let blockers = || tried.blockers.iter().filter_map(|index| occupants.get(*index));
        let mut blocked_by = BTreeMap::new();
        for blocker in blockers() {
            let pid = blocker.holder.as_ref().map(|holder| holder.pid);
            blocked_by
                .entry((Obstacle::of(blocker), blocker.owner.state, pid))
                .and_modify(Blocker::add_another)
                .or_insert_with(|| Blocker::of(blocker));
        }
        let last_free = LastFree::of(blockers().map(|blocker| blocker.freedom));
        Self {
            reuse: request.reuse,
            bind: tried.bind,
            listen: tried.listen,
            blocked_by: blocked_by.into_values().collect(),
            free_at: last_free.at,
            free_at_latest: last_free.latest,
            earlier_by: last_free.earlier_by,
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
