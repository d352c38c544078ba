//! Which local ports connect() may choose in a network namespace.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observed::{Sighting, Snapshot, State};

/// How connect() chooses a local port in a network namespace: sysctls under `net.ipv4`, for IPv6 as well
/// (`__inet_hash_connect`, net/ipv4/inet_hashtables.c).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalPorts {
    /// `ip_local_port_range`.
    pub range: RangeInclusive<u16>,
    /// `ip_local_reserved_ports`: given to nobody who does not name them in bind().
    pub reserved: Vec<RangeInclusive<u16>>,
    pub tw_reuse: TwReuse,
    /// `tcp_timestamps` is on. Without timestamps no TIME_WAIT is taken over.
    pub timestamps: bool,
    /// How old a TIME_WAIT must be to be taken over: `tcp_tw_reuse_delay`. `None` where the kernel has no such sysctl
    /// (before 6.14): then it compares whole seconds, and it may take over a FIN_WAIT2 as well, as 5.10 does.
    pub tw_reuse_delay: Option<Duration>,
}

impl LocalPorts {
    /// connect() may choose this port.
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}

/// `tcp_tw_reuse`: whether connect() takes over ports in TIME_WAIT (`tcp_twsk_unique`, net/ipv4/tcp_ipv4.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "tw_reuse")
)]
pub enum TwReuse {
    /// 0
    Never,
    /// 1
    Always,
    /// 2, the default: only where one of the two addresses is a loopback address.
    Loopback,
}

/// The ports of a namespace, whatever the destination.
pub(crate) struct Ports<'a> {
    pub(crate) rules: &'a LocalPorts,
    /// By number: connect() may choose it, if no connection to the destination has it.
    open: Vec<bool>,
    /// How many those are.
    pub(crate) count: u64,
}

impl<'a> Ports<'a> {
    pub(crate) fn of(
        snapshot: &Snapshot,
        rules: &'a LocalPorts,
        same_destination: &[Sighting],
        listening: &HashSet<(u32, u16)>,
    ) -> Self {
        let is_bound = |other: &&Sighting| matches!(other.state, State::Listen | State::BoundInactive);
        let mut bound: HashSet<u16> = same_destination
            .iter()
            .filter(is_bound)
            .map(|other| other.local.port())
            .collect();
        // What a listener's connections leave keeps its port a bound one.
        let seen = snapshot.seen().iter().map(|sighting| sighting.local.port());
        bound.extend(seen.filter(|&port| listening.contains(&(snapshot.netns, port))));
        let open: Vec<bool> = (0..=u16::MAX)
            .map(|port| rules.has(port) && !bound.contains(&port))
            .collect();
        let count = open.iter().filter(|open| **open).count() as u64;
        Self { rules, open, count }
    }

    /// connect() may choose it, or may have chosen it. Where something listens, the connections came from outside.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        self.open[usize::from(port)]
    }
}
