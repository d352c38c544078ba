//! What was looked up after the death: sock_diag's answers, who has the ports, and who else has the sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::observed::{Family, LocalPorts, Protocol, State};
use crate::port::{Addressing, PortOwner};

/// The timer of a socket as sock_diag tells it (`idiag_timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    None,
    Retransmit,
    Keepalive,
    TimeWait,
    /// The zero-window probe.
    Persist,
    /// The delayed ACK, 7.x.
    DelayedAck,
    Unknown(u8),
}

/// A socket as one sock_diag dump showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    pub protocol: Protocol,
    /// For a time-wait mini socket its substate: FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub cookie: u64,
    /// 0 for sockets that no file refers to.
    pub inode: u64,
    pub timer: Timer,
    /// Until the timer fires; 0 when it is overdue.
    pub expires: Duration,
    /// Retransmissions or probes so far.
    pub retransmits: u8,
    /// Retransmission timeout, from `tcp_info`; `None` for mini sockets.
    pub rto: Option<Duration>,
    /// Doublings of that timeout so far, from `tcp_info`.
    pub backoff: u8,
    /// Bytes that the peer has not acknowledged, what `ss` calls Send-Q: `write_seq - snd_una` (`tcp_diag_get_info`,
    /// net/ipv4/tcp_diag.c). A FIN counts as one of them (`tcp_send_fin`, net/ipv4/tcp_output.c).
    pub send_queue: u32,
    /// Since the last acknowledgement of the peer, from `tcp_info`; `None` for mini sockets.
    pub last_ack: Option<Duration>,
    /// Its segments have TCP timestamps, from `tcp_info`; `None` for mini sockets, and where an older recording does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<bool>,
    /// The interface that it is bound to, by SO_BINDTODEVICE or a link-local address; 0 for none.
    pub interface: u32,
    /// It carries an MPTCP connection. Told of full sockets only, and by most kernels only to CAP_NET_ADMIN
    /// (`tcp_diag_get_aux`, net/ipv4/tcp_diag.c).
    pub is_subflow: bool,
}

/// What a namespace tells of its table of TIME_WAITs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// How often there was no room since the namespace was seen first.
    pub count: u64,
    /// There was none when it was looked at after the death.
    pub is_full: bool,
}

/// What the sysctls of a namespace say of how long the kernel keeps what no process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpTimeouts {
    /// `net.ipv4.tcp_fin_timeout`: how long FIN_WAIT2 lasts.
    pub fin_timeout: Duration,
    /// `net.ipv4.tcp_retries2`: how often the time between zero-window probes is doubled at most (`tcp_send_probe0`,
    /// net/ipv4/tcp_output.c).
    pub retries2: u32,
    /// `net.ipv4.tcp_rto_max_ms`, or TCP_RTO_MAX where the kernel has no such sysctl (before 6.15).
    pub rto_max: Duration,
}

/// Which sockets a look was for. What it does not show of others may be there all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Their local ports.
    pub ports: BTreeSet<u16>,
    /// Which of sock_diag's lists.
    pub kinds: BTreeSet<(Protocol, Family)>,
}

/// One look at a network namespace after the death. Several reports share what was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Inode of the namespace.
    pub netns: u32,
    /// What tells the namespace from a later one with the same inode (SO_NETNS_COOKIE, 5.14); `None` where that is not
    /// known.
    pub cookie: Option<u64>,
    /// What the look was for; `None` where that is every socket that may matter to whoever reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// When the look began: what it showed was there at that moment.
    pub began: Timestamp,
    /// When sock_diag was read: what it did not show was gone by then.
    pub time: Timestamp,
    /// `None` when the namespace could not be looked into.
    pub sightings: Option<Arc<Vec<Sighting>>>,
    /// Why it may not be looked into; `None` when it was, or when it is gone.
    pub refused: Option<String>,
    /// `net.ipv4.tcp_orphan_retries` as the kernel applies it (0 counts as 8); `None` where it could not be read.
    pub orphan_retries: Option<u32>,
    /// `None` where they could not be read, or an older recording does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_timeouts: Option<TcpTimeouts>,
    /// What the namespace tells of missing TIME_WAITs; `None` where that is not known.
    pub overflow: Option<Overflow>,
    /// Everything that has one of the ports asked for, with its options; `None` where they could not be read.
    pub owners: Option<Vec<Arc<PortOwner>>>,
    /// What it tells of the addresses and devices of those ports.
    #[serde(default, skip_serializing_if = "Addressing::is_empty")]
    pub addressing: Addressing,
    /// Sockets that are only bound are among the owners or the sightings, if there are any.
    pub shows_bound: bool,
    /// How connect() chooses local ports there; `None` where that is not known.
    pub local_ports: Option<LocalPorts>,
    /// Whoever has them, the sockets that are connected to a remote port of the process's outgoing connections, and those
    /// that listen or are bound only. `None` where nobody asked for them.
    pub same_destination: Option<Arc<Vec<Sighting>>>,
}

impl Snapshot {
    /// What was there; nothing where the namespace could not be opened.
    #[must_use]
    pub fn seen(&self) -> &[Sighting] {
        self.sightings.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// A descriptor that leads to a socket with a local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFile {
    pub pid: u32,
    pub comm: String,
    pub fd: u32,
    pub owner: PortOwner,
}

/// A descriptor in another process that leads to a socket of the dead one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub inode: u64,
    pub pid: u32,
    pub comm: String,
    pub fd: u32,
    pub relation: Relation,
}

/// How the holder is related to the dead process, as far as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// One of them forked the other, or a common ancestor that was watched forked both.
    Family,
    /// It was made with CLONE_FILES and shares the fd table.
    SharedTable,
    /// The holder got it while it lived, not by its fork.
    Received,
    /// None of these was seen.
    Unknown,
}
