//! The sockets that have a port, and until when: what a look at a network namespace tells of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::expiry::Freedom;
use crate::observed::{Family, Protocol, Sighting, Snapshot, Socket, State, Timer};
use crate::port::{PortOwner, Reuse};
use crate::verdict::{FreeRule, Outcome, SocketReport};

/// A socket that has a port, and when it gives it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Shared by the reports that tell of it.
    pub owner: Arc<PortOwner>,
    pub freedom: Freedom,
}

impl Occupant {
    /// A process has a descriptor of it, or the kernel holds its file.
    #[must_use]
    pub fn held(&self) -> bool {
        self.freedom.rule == FreeRule::Holder
    }

    /// What it is called as a leftover.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.owner.state {
            _ if self.held() => Outcome::Held,
            State::TimeWait => Outcome::TimeWait,
            State::FinWait2 => Outcome::FinWait2,
            State::FinWait1 => Outcome::FinWait1,
            State::Closing => Outcome::Closing,
            State::LastAck => Outcome::LastAck,
            _ => Outcome::Unknown,
        }
    }
}

/// Everything that has one of these ports in the namespace of that look.
///
/// `known` are the sockets of the dead process, whose options are used where the look tells none.
#[must_use]
pub fn occupants(
    look: &Snapshot,
    ports: &BTreeSet<u16>,
    known: &[SocketReport],
    live: &[&Socket],
    hz: u32,
) -> Vec<Occupant> {
    let sightings = look
        .seen()
        .iter()
        .filter(|seen| ports.contains(&seen.local.port()));
    let sockets = known
        .iter()
        .map(|report| (report.seen_cookie, report.socket.as_ref()));
    let sockets = sockets.chain(live.iter().map(|live| (None, *live)));
    let by_cookie: HashMap<u64, &Socket> = sockets
        .filter(|(_, socket)| ports.contains(&socket.local.port()))
        .filter_map(|(seen, socket)| Some((seen.or(socket.cookie)?, socket)))
        .collect();
    let since = |cookie| by_cookie.get(&cookie).and_then(|socket| socket.fin_wait2_since());

    let Some(owners) = &look.owners else {
        let unseen = known
            .iter()
            .filter(|report| report.outcome == Outcome::Held && report.state.is_none())
            .map(|report| report.socket.as_ref())
            .filter(|socket| socket.netns == look.netns && ports.contains(&socket.local.port()))
            .map(from_record);
        return sightings
            // A request of a handshake has no port of its own, and an MPTCP socket has that of its subflow.
            .filter(|seen| seen.state != State::NewSynRecv && seen.protocol == Protocol::Tcp)
            .map(|seen| Occupant {
                owner: from_sighting(look.netns, seen, by_cookie.get(&seen.cookie).copied()).into(),
                freedom: Freedom::of(seen, look, hz, since(seen.cookie)),
            })
            .chain(unseen)
            .collect();
    };
    let seen: HashMap<u64, &Sighting> = sightings.map(|seen| (seen.cookie, seen)).collect();
    let of_ports = owners.iter().filter(|owner| ports.contains(&owner.local.port()));
    let mut occupants = Vec::with_capacity(of_ports.clone().count());
    // These are in no table, and their descriptors may be nobody's here.
    let is_listed = |seen: &Sighting| {
        of_ports
            .clone()
            .any(|owner| owner.cookie == Some(seen.cookie) || (owner.inode != 0 && owner.inode == seen.inode))
    };
    let bound = seen
        .values()
        .filter(|seen| seen.state == State::BoundInactive && !is_listed(seen));
    occupants.extend(bound.map(|seen| Occupant {
        owner: from_sighting(look.netns, seen, by_cookie.get(&seen.cookie).copied()).into(),
        freedom: Freedom::of(seen, look, hz, None),
    }));
    occupants.extend(of_ports.map(|owner| {
        let seen = owner.cookie.and_then(|cookie| seen.get(&cookie));
        let freedom = match seen.filter(|seen| seen.state == owner.state) {
            _ if owner.inode != 0 => Freedom::open(FreeRule::Holder),
            Some(seen) => Freedom::of(seen, look, hz, since(seen.cookie)),
            None => Freedom::open(FreeRule::Unknown),
        };
        Occupant {
            owner: Arc::clone(owner),
            freedom,
        }
    }));
    occupants
}

/// What sock_diag alone tells, with the options of the socket if it was the dead process's.
fn from_sighting(netns: u32, seen: &Sighting, known: Option<&Socket>) -> PortOwner {
    let family = if seen.local.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    PortOwner {
        sk: 0,
        netns,
        protocol: seen.protocol,
        family,
        local: seen.local,
        remote: (seen.remote.port() != 0).then_some(seen.remote),
        state: seen.state,
        mini: seen.timer == Timer::TimeWait,
        reuse: known.map(|socket| Reuse::new(socket.reuseaddr, socket.reuseport)),
        v6only: known.and_then(|socket| socket.v6only),
        device: 0,
        uid: known.and_then(|socket| socket.uid),
        cookie: Some(seen.cookie),
        inode: seen.inode,
        bucket: None,
    }
}

/// A socket that another process has and that was not seen: one that is bound, which sock_diag does not list before 6.8, or
/// any where the namespace may not be looked into.
fn from_record(socket: &Socket) -> Occupant {
    Occupant {
        owner: Arc::new(PortOwner {
            sk: socket.id.sk,
            netns: socket.netns,
            protocol: socket.protocol,
            family: socket.family,
            local: socket.local,
            remote: socket.remote,
            state: match socket.last_state() {
                State::Close => State::BoundInactive,
                open => open,
            },
            mini: false,
            reuse: Some(Reuse::new(socket.reuseaddr, socket.reuseport)),
            v6only: socket.v6only,
            device: 0,
            uid: socket.uid,
            cookie: socket.cookie,
            inode: socket.inode.unwrap_or_default(),
            bucket: None,
        }),
        freedom: Freedom::open(FreeRule::Holder),
    }
}
