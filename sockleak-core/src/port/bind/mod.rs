//! Whether a `bind()` succeeds: the kernel's rule, applied to the sockets that have the port.
//!
//! The rule is that of `inet_csk_get_port` (net/ipv4/inet_connection_sock.c) for a port that was asked for. The
//! `listen()` that follows applies it once more to the same owners, without the shortcut of SO_REUSEADDR.

mod address;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub(super) use self::address::is_specific;

use crate::observed::{Family, Protocol, State};

/// A socket that has a local port, as far as `bind()` looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwner {
    /// Address of the `struct sock` or of the mini socket; 0 where only sock_diag showed it.
    pub sk: u64,
    /// Inode of its network namespace.
    pub netns: u32,
    pub protocol: Protocol,
    pub family: Family,
    /// Its own local address, which for a connection is never the listener's wildcard.
    pub local: SocketAddr,
    /// `None` for listeners and for sockets that never connected.
    pub remote: Option<SocketAddr>,
    /// For a time-wait mini socket its substate, FIN_WAIT2 or TIME_WAIT; CLOSE for one that is only bound.
    pub state: State,
    /// It is a time-wait mini socket, which the rule takes for TIME_WAIT in either substate.
    pub mini: bool,
    /// `None` where it was not seen.
    pub reuse: Option<Reuse>,
    /// IPV6_V6ONLY of an IPv6 socket; `None` for IPv4, and where it was not seen.
    pub v6only: Option<bool>,
    /// Index of the device that it is bound to; 0 for none.
    pub device: u32,
    /// The uid that the kernel compares for SO_REUSEPORT; `None` where it was not seen.
    pub uid: Option<u32>,
    pub cookie: Option<u64>,
    /// Inode in sockfs; 0 for sockets that no file refers to.
    pub inode: u64,
    /// What the kernel remembers of all owners of the port; `None` where it was not seen.
    pub bucket: Option<Bucket>,
}

/// SO_REUSEADDR and SO_REUSEPORT of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reuse {
    pub addr: bool,
    pub port: bool,
}

impl Reuse {
    /// Every combination, from none to both.
    pub const ALL: [Self; 4] = [
        Self::new(false, false),
        Self::new(true, false),
        Self::new(false, true),
        Self::new(true, true),
    ];

    #[must_use]
    pub const fn new(addr: bool, port: bool) -> Self {
        Self { addr, port }
    }
}

/// `struct inet_bind_bucket`: shortcuts that the kernel takes before it looks at the owners one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// `fastreuse` is positive: every owner was bound with SO_REUSEADDR, and none listens.
    pub reuse_addr: bool,
    /// `fastreuseport` is FASTREUSEPORT_ANY: every owner was bound with SO_REUSEPORT, to any address.
    pub reuse_port: bool,
    /// `fastreuseport` is FASTREUSEPORT_STRICT: the last socket that was bound with SO_REUSEPORT has this address.
    pub reuse_port_at: Option<SharedAddress>,
    /// `fastuid`: the uid of those that were bound with SO_REUSEPORT.
    pub uid: u32,
    /// `l3mdev`: index of the VRF whose bucket it is; 0 for none.
    #[serde(default)]
    pub vrf: u32,
}

/// An address that SO_REUSEPORT shares whatever else its owners are: `fast_rcv_saddr`, or `fast_v6_rcv_saddr` with
/// `fast_ipv6_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedAddress {
    pub address: IpAddr,
    pub v6only: bool,
}

/// A socket that is about to be bound to a port, and then to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// A v4-mapped address is that of an IPv6 socket.
    pub address: IpAddr,
    /// IPV6_V6ONLY of an IPv6 socket.
    pub v6only: bool,
    pub reuse: Reuse,
    /// Index of the device that it is bound to; 0 for none.
    pub device: u32,
    /// Index of the VRF of that device; 0 for none, and where all share their ports.
    pub vrf: u32,
    /// The uid of the process; `None` when it is that of whoever bound the port before.
    pub uid: Option<u32>,
}

impl Request {
    /// A `bind()` to one IPv6 address makes the socket v6only by itself (`__inet6_bind`, net/ipv6/af_inet6.c).
    fn is_v6only(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => self.v6only || is_specific(address),
        }
    }
}

/// What `bind()` or `listen()` would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    Ok,
    /// EADDRINUSE.
    InUse,
    /// EADDRNOTAVAIL: the address is not one of the network namespace.
    NotAvailable,
    /// EINVAL: no socket of this kind may have the address.
    Invalid,
    /// EACCES: the user may not have a port below `ip_unprivileged_port_start`.
    Permission,
    /// It depends on options of a socket that could not be read.
    Unknown,
}

/// What `bind()`, and then `listen()`, say of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub bind: Answer,
    /// As `bind` where that fails.
    pub listen: Answer,
    /// Which of the owners, by their indices, are in the way of either, or may be.
    pub blockers: Vec<usize>,
}

/// What that `bind()` says, and which of the owners of the port are in its way or may be.
///
/// The owners are all of one port in one network namespace.
#[must_use]
pub fn in_the_way<'a>(
    request: &Request,
    owners: impl IntoIterator<Item = &'a PortOwner, IntoIter: Clone>,
) -> Tried {
    let owners = owners.into_iter();
    let sharing = owners.clone().filter(|owner| shares_bucket(request, owner));
    let (mut by_address, mut by_port) = (false, false);
    for bucket in sharing.filter_map(|owner| owner.bucket) {
        by_address |= bucket.reuse_addr && request.reuse.addr;
        by_port |= shares_port(request, &bucket);
    }
    if by_port {
        return Tried {
            bind: Answer::Ok,
            listen: Answer::Ok,
            blockers: Vec::new(),
        };
    }
    let mut answer = Answer::Ok;
    let mut blockers = Vec::new();
    for (index, owner) in owners.enumerate() {
        let one = conflict(request, owner);
        if one == Answer::Ok {
            continue;
        }
        if answer != Answer::InUse {
            answer = one;
        }
        blockers.push(index);
    }
    if !by_address {
        return Tried {
            bind: answer,
            listen: answer,
            blockers,
        };
    }
    // With SO_REUSEPORT, bind() has marked the bucket so that listen() takes its shortcut (`inet_csk_update_fastreuse`).
    if request.reuse.port {
        answer = Answer::Ok;
        blockers.clear();
    }
    Tried {
        bind: Answer::Ok,
        listen: answer,
        blockers,
    }
}

/// The ports of a VRF are its own (`inet_bind_bucket_match`, net/ipv4/inet_hashtables.c).
fn shares_bucket(request: &Request, owner: &PortOwner) -> bool {
    owner.bucket.is_none_or(|bucket| bucket.vrf == request.vrf)
}

/// `sk_reuseport_match`.
fn shares_port(request: &Request, bucket: &Bucket) -> bool {
    let is_within = |at| address::is_within(request, at);
    request.reuse.port
        && request.uid.is_none_or(|uid| uid == bucket.uid)
        && (bucket.reuse_port || bucket.reuse_port_at.is_some_and(is_within))
}

/// `inet_bind_conflict` (net/ipv4/inet_connection_sock.c).
fn conflict(request: &Request, owner: &PortOwner) -> Answer {
    let on_other_device = ![request.device, owner.device].contains(&0) && request.device != owner.device;
    if on_other_device || !shares_bucket(request, owner) {
        return Answer::Ok;
    }
    match address::overlaps(request, owner) {
        None => return Answer::Unknown,
        Some(false) => return Answer::Ok,
        Some(true) => {}
    }
    if request.reuse == Reuse::default() {
        return Answer::InUse;
    }
    let Some(reuse) = owner.reuse else {
        // A listener is not shared by SO_REUSEADDR, whatever its own options are.
        let only_addr = request.reuse == Reuse::new(true, false);
        return if only_addr && owner.state == State::Listen {
            Answer::InUse
        } else {
            Answer::Unknown
        };
    };
    if request.reuse.addr && reuse.addr && owner.state != State::Listen {
        return Answer::Ok;
    }
    if !(request.reuse.port && reuse.port) {
        return Answer::InUse;
    }
    match (request.uid, owner.uid) {
        _ if owner.mini => Answer::Ok,
        (None, _) => Answer::Ok,
        (Some(_), None) => Answer::Unknown,
        (Some(new), Some(old)) if new == old => Answer::Ok,
        (Some(_), Some(_)) => Answer::InUse,
    }
}
