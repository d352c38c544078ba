//! Whether two local addresses overlap: `inet_rcv_saddr_equal` (net/ipv4/inet_connection_sock.c), with wildcards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{PortOwner, Request, SharedAddress};
use crate::observed::Family;

/// LOOPBACK4_IPV6 (include/net/ipv6.h): the IPv4 address that a socket of a pure IPv6 address has besides.
const LOOPBACK4_IPV6: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// The kinds of addresses that the rule tells apart (`ipv6_addr_type`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Mapped,
    Specific,
}

/// Whether the address that is asked for and that of the owner meet; `None` where that depends on an IPV6_V6ONLY
/// that was not seen.
pub fn overlaps(request: &Request, owner: &PortOwner) -> Option<bool> {
    let with = |has_v6only| match request.address {
        IpAddr::V4(asked) => ipv4_equal(asked, owner, has_v6only),
        IpAddr::V6(asked) => ipv6_equal(asked, request.is_v6only(), owner, has_v6only),
    };
    match (owner.family, owner.v6only) {
        (Family::Ipv4, _) => Some(with(false)),
        (Family::Ipv6, Some(v6only)) => Some(with(v6only)),
        (Family::Ipv6, None) => Some(with(false)).filter(|same| *same == with(true)),
    }
}

/// `ipv4_rcv_saddr_equal`, which a socket of either family may be held against.
fn ipv4_equal(asked: Ipv4Addr, owner: &PortOwner, has_v6only: bool) -> bool {
    let has = ipv4_of(owner.local.ip());
    !has_v6only && (asked == has || asked.is_unspecified() || has.is_unspecified())
}

/// `ipv6_rcv_saddr_equal`.
fn ipv6_equal(asked: Ipv6Addr, v6only: bool, owner: &PortOwner, has_v6only: bool) -> bool {
    let asked_kind = kind(asked);
    let (has, has_kind) = match (owner.family, owner.local.ip()) {
        (Family::Ipv6, IpAddr::V6(address)) => (Some(address), kind(address)),
        _ => (None, Kind::Mapped),
    };
    if asked_kind == Kind::Mapped && has_kind == Kind::Mapped {
        return ipv4_equal(ipv4_of(IpAddr::V6(asked)), owner, has_v6only);
    }
    match (asked_kind, has_kind) {
        (Kind::Any, Kind::Any) => true,
        (_, Kind::Any) if !(has_v6only && asked_kind == Kind::Mapped) => true,
        (Kind::Any, _) if !(v6only && has_kind == Kind::Mapped) => true,
        _ => has == Some(asked),
    }
}

/// Whether the address that is asked for is that one, or the wildcard is that one: the comparison of
/// `sk_reuseport_match`, for which a wildcard that is asked for is an address like another.
pub fn is_within(request: &Request, shared: SharedAddress) -> bool {
    let ipv4_equal = || {
        let has = ipv4_of(shared.address);
        !request.is_v6only() && (has == ipv4_of(request.address) || has.is_unspecified())
    };
    let IpAddr::V6(has) = shared.address else {
        return ipv4_equal();
    };
    let asked = match request.address {
        IpAddr::V4(_) => Kind::Mapped,
        IpAddr::V6(asked) => kind(asked),
    };
    match (kind(has), asked) {
        (Kind::Mapped, Kind::Mapped) => ipv4_equal(),
        (Kind::Any, Kind::Mapped) if shared.v6only => false,
        (Kind::Any, _) => true,
        _ => request.address == shared.address,
    }
}

/// It is neither the wildcard nor v4-mapped.
pub fn is_specific(address: Ipv6Addr) -> bool {
    kind(address) == Kind::Specific
}

fn kind(address: Ipv6Addr) -> Kind {
    if address.is_unspecified() {
        Kind::Any
    } else if address.to_ipv4_mapped().is_some() {
        Kind::Mapped
    } else {
        Kind::Specific
    }
}

/// `sk_rcv_saddr`: IPv6 sockets have an IPv4 address too (`__inet6_bind`, `tcp_v6_syn_recv_sock`).
fn ipv4_of(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) if address.is_unspecified() => Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(LOOPBACK4_IPV6),
    }
}
