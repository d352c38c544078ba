//! Whether a `bind()` succeeds: the kernel's rule, applied to the sockets that have the port.
//!
//! The rule is that of `inet_csk_get_port` (net/ipv4/inet_connection_sock.c) for a port that was asked for. The
//! `listen()` that follows applies it once more to the same owners, so that it answers as `bind()` did.

mod address;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

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
    /// The uid of the process; `None` when it is that of whoever bound the port before.
    pub uid: Option<u32>,
}

/// What `bind()` would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    Ok,
    /// EADDRINUSE.
    InUse,
    /// It depends on options of a socket that could not be read.
    Unknown,
}

/// What that `bind()` says, and which of the owners of the port, by their indices, are in its way or may be.
///
/// The owners are all of one port in one network namespace.
#[must_use]
pub fn in_the_way<'a>(
    request: &Request,
    owners: impl IntoIterator<Item = &'a PortOwner, IntoIter: Clone>,
) -> (Answer, Vec<usize>) {
    let owners = owners.into_iter();
    if owners.clone().any(|owner| shortcut(request, owner)) {
        return (Answer::Ok, Vec::new());
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
    (answer, blockers)
}

/// `inet_csk_get_port`: `fastreuse` and `sk_reuseport_match`. All owners share the bucket.
fn shortcut(request: &Request, owner: &PortOwner) -> bool {
    let Some(bucket) = owner.bucket else {
        return false;
    };
    let same_uid = request.uid.is_none_or(|uid| uid == bucket.uid);
    let shared = bucket.reuse_port
        || bucket
            .reuse_port_at
            .is_some_and(|at| address::is_within(request, at));
    (bucket.reuse_addr && request.reuse.addr) || (shared && request.reuse.port && same_uid)
}

/// `inet_bind_conflict` (net/ipv4/inet_connection_sock.c) for a new socket that is bound to no device.
fn conflict(request: &Request, owner: &PortOwner) -> Answer {
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
