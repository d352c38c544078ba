//! A socket of a watched process, as the BPF programs recorded it.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::observed::{State, Transition};

/// What tells one followed socket from every other: the address of its `struct sock` alone does not,
/// since the slab reuses it within milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SocketId {
    /// Address of the `struct sock`.
    pub sk: u64,
    /// Boot-time nanoseconds from which on it was followed.
    pub since: u64,
    /// Process id of its owner.
    pub tgid: u32,
    pub origin: Origin,
}

/// Why a socket is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It was in the fd table when its process died.
    Inventory,
    /// Its living process closed or shut it down.
    Live,
    /// It is a TCP socket of an MPTCP socket of the inventory.
    Subflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Tcp,
    Mptcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// SO_LINGER, when it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linger {
    pub seconds: u32,
}

/// `tcp_receive_reset` fired for the socket. That is not yet a reset by the peer: it also fires when
/// data arrives after close (net/ipv4/tcp_input.c, `tcp_reset` called from `tcp_rcv_state_process`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetReceived {
    /// State of the socket at that moment.
    pub state: State,
}

/// An RST was sent for the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetSent {
    /// Why; `None` where the kernel does not tell.
    pub reason: Option<ResetReason>,
}

/// Why the kernel sent an RST: `enum sk_rst_reason` (include/net/rstreason.h), as far as a verdict depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetReason {
    /// Data after close, or a negative TCP_LINGER2 when the FIN was acknowledged.
    AbortOnData,
    /// Data for a time-wait mini socket.
    TimewaitSocket,
    /// close() with unread data.
    AbortOnClose,
    /// close() in FIN_WAIT2 with a negative TCP_LINGER2.
    AbortOnLinger,
    /// Too many orphans, or no memory for them.
    AbortOnMemory,
    /// `tcp_disconnect` or `tcp_abort` of a connection: SO_LINGER 0, an accept queue's end, SOCK_DESTROY.
    TcpState,
    /// `tcp_disconnect` with data that was not sent.
    DisconnectWithData,
    /// Any other.
    Other,
}

impl ResetReason {
    /// The reason of that name in the kernel's BTF, such as `SK_RST_REASON_TCP_ABORT_ON_CLOSE`, with or without
    /// the prefix. Its numbers differ between kernels. `None` for `NOT_SPECIFIED`, which is no reason.
    #[must_use]
    pub fn from_kernel_name(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("SK_RST_REASON_").unwrap_or(name) {
            "NOT_SPECIFIED" => return None,
            "TCP_ABORT_ON_DATA" => Self::AbortOnData,
            "TCP_TIMEWAIT_SOCKET" => Self::TimewaitSocket,
            "TCP_ABORT_ON_CLOSE" => Self::AbortOnClose,
            "TCP_ABORT_ON_LINGER" => Self::AbortOnLinger,
            "TCP_ABORT_ON_MEMORY" => Self::AbortOnMemory,
            "TCP_STATE" => Self::TcpState,
            "TCP_DISCONNECT_WITH_DATA" => Self::DisconnectWithData,
            _ => Self::Other,
        })
    }
}

/// A socket that is followed, and what happened to it since.
///
/// `state_at_death` and everything up to `linger2` hold at the exit event (or, for [`Origin::Live`],
/// at the first transition that was followed); `transitions` and the resets came later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    pub id: SocketId,
    pub protocol: Protocol,
    pub family: Family,
    /// Its own local address: v4-mapped stays v4-mapped. Port 0 if it was never bound.
    pub local: SocketAddr,
    /// `None` for listeners and for sockets that never connected.
    pub remote: Option<SocketAddr>,
    /// Inode of its network namespace.
    pub netns: u32,
    /// The kernel's socket cookie; `None` if none had been generated when it was last looked at.
    pub cookie: Option<u64>,
    /// Its descriptors, ascending; empty for all but [`Origin::Inventory`].
    pub fds: SmallVec<[u32; 4]>,
    /// Inode in sockfs, the number in `socket:[n]`.
    pub inode: Option<u64>,
    /// The TCP sockets of an MPTCP socket of the inventory, by address.
    pub subflows: Vec<Self>,
    /// `subflows` are all of them. Always false for TCP.
    pub subflows_complete: bool,
    /// References to its `struct file`; more than `fds.len()` means that somebody else holds it too.
    pub references: Option<u32>,
    pub state_at_death: State,
    /// The process had called shutdown() for sending (`SEND_SHUTDOWN` in `sk_shutdown`).
    pub shutdown: bool,
    /// Received bytes that were not read; a received FIN does not count.
    pub unread_bytes: u32,
    /// `write_seq - snd_una`, what `ss` calls Send-Q.
    pub unacked_bytes: u32,
    /// Connections that a listener had not accepted; `None` for other sockets.
    pub accept_queue: Option<u32>,
    pub reuseaddr: bool,
    pub reuseport: bool,
    /// `None` for IPv4 sockets.
    pub v6only: Option<bool>,
    pub linger: Option<Linger>,
    /// TCP_LINGER2 is negative: FIN_WAIT2 is skipped by a reset.
    pub linger2_negative: bool,
    /// TCP_REPAIR was on: the kernel closes silently.
    pub repair: bool,
    /// `sk_err` was ECONNRESET: the peer had reset it before.
    pub reset_before: bool,
    /// The creator's uid, where the kernel tells.
    pub uid: Option<u32>,
    /// Index of the device that it is bound to (SO_BINDTODEVICE, or the scope of a link-local address); 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device: u32,
    /// It may have an address that is not local (IP_FREEBIND, IP_TRANSPARENT).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nonlocal: bool,
    /// Its changes of state since `id.since`, in order, without self-transitions.
    pub transitions: SmallVec<[Transition; 4]>,
    /// When the last of them happened is known, but some in between did not fit into the record.
    pub transitions_truncated: bool,
    pub reset_sent: Option<ResetSent>,
    pub reset_received: Option<ResetReceived>,
}

/// Most sockets are bound to no device, and a recording has many.
const fn is_zero(device: &u32) -> bool {
    *device == 0
}

impl Socket {
    /// Somebody else has it too, or that is not known.
    #[must_use]
    pub fn may_be_shared(&self) -> bool {
        self.references
            .is_none_or(|references| references as usize > self.fds.len())
    }

    /// The last state that was seen.
    #[must_use]
    pub fn last_state(&self) -> State {
        self.transitions
            .last()
            .map_or(self.state_at_death, |transition| transition.to)
    }

    /// When the kernel was seen to change it to that state.
    #[must_use]
    pub fn entered(&self, state: State) -> Option<Timestamp> {
        self.transitions
            .iter()
            .find(|transition| transition.to == state)
            .map(Transition::time)
    }

    /// Since when it can have been FIN_WAIT2 at the earliest. sock_diag may have shown that before the change itself
    /// was read: then since it was FIN_WAIT1.
    #[must_use]
    pub fn fin_wait2_since(&self) -> Option<Timestamp> {
        self.entered(State::FinWait2)
            .or_else(|| self.entered(State::FinWait1))
    }
}

#[cfg(test)]
mod tests {
    use super::{ResetReason, State};
    use crate::testing::{at, socket};

    #[test]
    fn fin_wait2_is_not_older_than_what_was_seen() {
        let closing = socket(State::Established).changes(&[(State::Established, State::FinWait1)]);
        assert_eq!(closing.clone().build().fin_wait2_since(), Some(at(1)));
        let closed = closing.changes(&[(State::FinWait1, State::FinWait2)]);
        assert_eq!(closed.build().fin_wait2_since(), Some(at(2)));
        assert_eq!(socket(State::FinWait2).build().fin_wait2_since(), None);
    }

    #[test]
    fn a_reason_is_known_by_the_name_that_the_kernel_gives_it() {
        for name in [
            "TCP_ABORT_ON_DATA",
            "TCP_TIMEWAIT_SOCKET",
            "TCP_ABORT_ON_CLOSE",
            "TCP_ABORT_ON_LINGER",
            "TCP_ABORT_ON_MEMORY",
            "TCP_STATE",
            "TCP_DISCONNECT_WITH_DATA",
        ] {
            assert!(
                ResetReason::from_kernel_name(name).is_some_and(|reason| reason != ResetReason::Other),
                "{name}"
            );
        }
        let other = ResetReason::from_kernel_name("SK_RST_REASON_MPTCP_RST_EUNSPEC");
        assert_eq!(other, Some(ResetReason::Other));
        assert_eq!(ResetReason::from_kernel_name("NOT_SPECIFIED"), None);
    }
}
