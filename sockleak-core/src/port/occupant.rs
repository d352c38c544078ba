//! The sockets that have a port, and until when: what a look at a network namespace tells of them.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::expiry::FreeRule;
use crate::expiry::Freedom;
use crate::observed::{Family, Protocol, Sighting, Snapshot, Socket, State, Timer};
use crate::port::bind::is_specific;
use crate::port::{PortOwner, Reuse};
use crate::verdict::{Holder, Outcome, SocketReport};

/// A socket that has a port, and when it gives it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Shared by the reports that tell of it.
    pub owner: Arc<PortOwner>,
    pub freedom: Freedom,
    /// The first of the processes that have a descriptor of it, as far as one is known.
    pub holder: Option<Box<Holder>>,
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
    let holders = Holders::of(known);
    let occupant = |owner: Arc<PortOwner>, freedom| Occupant {
        holder: holders.first(&owner),
        owner,
        freedom,
    };

    let Some(owners) = &look.owners else {
        let unseen = known
            .iter()
            .filter(|report| report.outcome == Outcome::Held && report.state.is_none())
            .map(|report| report.socket.as_ref())
            .filter(|socket| socket.netns == look.netns && ports.contains(&socket.local.port()))
            .map(from_record)
            .map(|owner| occupant(owner.into(), Freedom::open(FreeRule::Holder)));
        return sightings
            // A request of a handshake has no port of its own, and an MPTCP socket has that of its subflow.
            .filter(|seen| seen.state != State::NewSynRecv && seen.protocol == Protocol::Tcp)
            .map(|seen| {
                let owner = from_sighting(look.netns, seen, by_cookie.get(&seen.cookie).copied());
                occupant(owner.into(), Freedom::of(seen, look, hz, since(seen.cookie)))
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
    occupants.extend(bound.map(|seen| {
        let owner = from_sighting(look.netns, seen, by_cookie.get(&seen.cookie).copied());
        occupant(owner.into(), Freedom::of(seen, look, hz, None))
    }));
    occupants.extend(of_ports.map(|owner| {
        let seen = owner.cookie.and_then(|cookie| seen.get(&cookie));
        let freedom = match seen.filter(|seen| seen.state == owner.state) {
            _ if owner.inode != 0 => Freedom::open(FreeRule::Holder),
            Some(seen) => Freedom::of(seen, look, hz, since(seen.cookie)),
            None => Freedom::open(FreeRule::Unknown),
        };
        occupant(Arc::clone(owner), freedom)
    }));
    occupants
}

/// Who has which of the dead process's sockets.
struct Holders<'a> {
    by_inode: HashMap<u64, &'a Holder>,
    by_cookie: HashMap<u64, &'a Holder>,
}

impl<'a> Holders<'a> {
    fn of(known: &'a [SocketReport]) -> Self {
        let held = || {
            known
                .iter()
                .filter_map(|report| Some((report, report.holders.first()?)))
        };
        // A subflow has the port of its MPTCP socket, and no descriptor of its own.
        let cookies = |report: &'a SocketReport| {
            let parts = report.subflows.iter().chain([report]);
            parts.filter_map(|part| part.seen_cookie.or(part.socket.cookie))
        };
        Self {
            by_inode: held()
                .filter_map(|(report, holder)| Some((report.socket.inode?, holder)))
                .collect(),
            by_cookie: held()
                .flat_map(|(report, holder)| cookies(report).map(move |cookie| (cookie, holder)))
                .collect(),
        }
    }

    fn first(&self, owner: &PortOwner) -> Option<Box<Holder>> {
        let by_cookie = owner.cookie.and_then(|cookie| self.by_cookie.get(&cookie));
        let holder = by_cookie.or_else(|| self.by_inode.get(&owner.inode))?;
        Some(Box::new((*holder).clone()))
    }
}

/// A socket that was bound to one IPv6 address is v6only by that, whatever its option says: of an MPTCP socket the option
/// is another socket's. A connection has that of its listener.
fn bound_v6only(local: SocketAddr, remote: Option<SocketAddr>) -> Option<bool> {
    let IpAddr::V6(address) = local.ip() else {
        return None;
    };
    (remote.is_none() && is_specific(address)).then_some(true)
}

/// What sock_diag alone tells, with the options of the socket if it was the dead process's.
fn from_sighting(netns: u32, seen: &Sighting, known: Option<&Socket>) -> PortOwner {
    let family = if seen.local.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let remote = (seen.remote.port() != 0).then_some(seen.remote);
    PortOwner {
        sk: 0,
        netns,
        protocol: seen.protocol,
        family,
        local: seen.local,
        remote,
        state: seen.state,
        mini: seen.timer == Timer::TimeWait,
        reuse: known.map(|socket| Reuse::new(socket.reuseaddr, socket.reuseport)),
        v6only: bound_v6only(seen.local, remote).or_else(|| known.and_then(|socket| socket.v6only)),
        device: seen.interface,
        uid: known.and_then(|socket| socket.uid),
        cookie: Some(seen.cookie),
        inode: seen.inode,
        bucket: None,
    }
}

/// A socket that another process has and that was not seen: one that is bound, which sock_diag does not list before 6.8, or
/// any where the namespace may not be looked into.
fn from_record(socket: &Socket) -> PortOwner {
    PortOwner {
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
        v6only: bound_v6only(socket.local, socket.remote).or(socket.v6only),
        device: socket.device,
        uid: socket.uid,
        cookie: socket.cookie,
        inode: socket.inode.unwrap_or_default(),
        bucket: None,
    }
}
