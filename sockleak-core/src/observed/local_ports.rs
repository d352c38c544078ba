//! How connect() chooses local ports in a network namespace, by its sysctls.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
