//! Whether a restart can have its port again: `bind()` with each combination of options, what is in its way, and
//! from when on it succeeds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::expiry::EarlierBy;
use crate::observed::{Socket, State};
use crate::port::{Answer, LocalAddress, Reuse};

/// An address and port that a process listens on or is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Inode of the network namespace.
    pub netns: u32,
    pub address: IpAddr,
    pub port: u16,
    /// `None` for IPv4.
    pub v6only: Option<bool>,
    /// The uid of the process that binds; `None` when it is that of whoever had the port before.
    pub uid: Option<u32>,
    /// Index of the device that the socket is bound to; 0 for none.
    pub device: u32,
    /// The socket may have an address that is not local (IP_FREEBIND, IP_TRANSPARENT).
    pub nonlocal: bool,
}

impl Endpoint {
    /// Where that socket listened or was bound to, if it did nothing else.
    #[must_use]
    pub fn of(socket: &Socket) -> Option<Self> {
        let bound = matches!(
            socket.state_at_death,
            State::Listen | State::Close | State::BoundInactive
        );
        let port = socket.local.port();
        (bound && socket.remote.is_none() && port != 0).then_some(Self {
            netns: socket.netns,
            address: socket.local.ip(),
            port,
            v6only: socket.v6only,
            uid: socket.uid,
            device: socket.device,
            nonlocal: socket.nonlocal,
        })
    }

    /// What `bind()` looks at before it looks at the port.
    #[must_use]
    pub fn local_address(&self) -> LocalAddress {
        LocalAddress {
            address: self.address,
            v6only: self.v6only.unwrap_or_default(),
            device: self.device,
        }
    }
}

/// What a restart there meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    pub endpoint: Endpoint,
    /// The name of its device; `None` where it is bound to none, or the name is not known.
    pub device: Option<String>,
    /// The user whose `bind()` it is: who is asked for, or who has the port; `None` where nothing tells.
    pub user: Option<u32>,
    /// One for each of [`Reuse::ALL`], in that order.
    pub verdicts: Vec<BindVerdict>,
}

/// What `bind()`, and then `listen()`, say with these options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindVerdict {
    pub reuse: Reuse,
    pub bind: Answer,
    /// What `listen()` says after that `bind()`, which may be shared where listening is not.
    pub listen: Answer,
    /// What is in the way, or may be: each socket counts once.
    pub blocked_by: Vec<Blocker>,
    /// From when on it succeeds if nothing more arrives; `None` when it does now, or where no moment can be told.
    pub free_at: Option<Timestamp>,
    /// From when on it succeeds even if the peers close late; `None` as for `free_at`.
    pub free_at_latest: Option<Timestamp>,
    /// What may end the last of what is in the way sooner.
    pub earlier_by: Option<EarlierBy>,
}

impl BindVerdict {
    /// Nothing is seen in its way, and not everything could be seen.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.bind == Answer::Unknown && self.blocked_by.is_empty()
    }

    /// What a server meets: the first that is not [`Answer::Ok`].
    #[must_use]
    pub const fn answer(&self) -> Answer {
        match self.bind {
            Answer::Ok => self.listen,
            refused => refused,
        }
    }

    /// How many of each kind are in the way, or may be.
    #[must_use]
    pub fn obstacles(&self) -> BTreeMap<Obstacle, u64> {
        let mut counts = BTreeMap::new();
        for blocker in &self.blocked_by {
            *counts.entry(blocker.kind).or_default() += blocker.count;
        }
        counts
    }
}

/// Sockets in the way of a `bind()` that are of one kind, in one state, and of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub kind: Obstacle,
    pub state: State,
    pub count: u64,
    /// Where a socket has several, the first of them; `None` where none is known.
    pub holder: Option<BlockingProcess>,
}

/// A process that has what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingProcess {
    pub pid: u32,
    pub comm: String,
    /// `None` where it has several of these sockets.
    pub fd: Option<u32>,
}

/// What is in the way of a `bind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "blocked_by_kind")
)]
pub enum Obstacle {
    /// A socket that listens.
    Listener,
    /// A connection that somebody has, or that waits in a listener's queue.
    Connection,
    /// A socket that is bound and does nothing else.
    Bound,
    TimeWait,
    FinWait2,
    FinWait1,
    Closing,
    LastAck,
}
