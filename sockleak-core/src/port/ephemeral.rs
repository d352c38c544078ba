//! How many ports are left for connections to a destination.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::expiry::FreeRule;
use crate::observed::TwReuse;

/// The ports towards one destination. A v4-mapped address is here the IPv4 address that it is to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// When the report holds.
    pub time: Timestamp,
    pub netns: u32,
    /// connect() has this local address by its route, or by a bind() before it.
    pub laddr: IpAddr,
    pub raddr: IpAddr,
    pub rport: u16,
    /// Ports that leftovers hold.
    pub in_use: u64,
    /// Ports of the dead process's sockets that another process holds still.
    pub held: u64,
    /// Ports in `ip_local_port_range`.
    pub range_total: u64,
    /// Of those, the ones in `ip_local_reserved_ports`.
    pub reserved: u64,
    /// Ports that connect() finds without taking over a TIME_WAIT. A port that a bind() owns of which sock_diag shows
    /// no trace is one of them.
    pub available: u64,
    /// Ports in TIME_WAIT, whoever left them, that connect() takes over from `reusable_at` on if the connection had TCP
    /// timestamps.
    pub reusable: u64,
    /// From when on all of them are reusable.
    pub reusable_at: Option<Timestamp>,
    pub tw_reuse: TwReuse,
    /// connect() fails with EADDRNOTAVAIL; `None` where that depends on whether the peer used timestamps, or on whether
    /// an older kernel takes over a FIN_WAIT2.
    pub connect_fails: Option<bool>,
    /// The first moment at which a port comes back, where connect() fails or may fail and a moment can be told.
    pub connect_fails_until: Option<Timestamp>,
    /// When the ports in use come back, by the rule that they are free by; the first ones first.
    pub returns: Vec<Return>,
    /// When the last of the ports in use is back; `None` where that cannot be told.
    pub free_at: Option<Timestamp>,
    /// When all of them are back, even if the peers close late.
    pub free_at_latest: Option<Timestamp>,
}

/// Ports that come back by the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    pub rule: FreeRule,
    pub count: u64,
    /// When the last of them does if nothing more arrives; `None` where one has no moment.
    pub at: Option<Timestamp>,
    /// When all of them are, even if the peers close late.
    pub latest: Option<Timestamp>,
}
