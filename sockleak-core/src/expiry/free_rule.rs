//! By which rule the kernel frees a socket, and what may end it sooner.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "free_rule")
)]
pub enum FreeRule {
    /// The 60 seconds of TIME_WAIT.
    TimewaitTimer,
    /// FIN_WAIT2 ends by `tcp_fin_timeout` or TCP_LINGER2, or becomes TIME_WAIT when the peer closes.
    FinTimeout,
    /// An MPTCP socket without a file waits a minute for its peer, whatever `net.mptcp.close_timeout` says
    /// (`mptcp_close_timeout`, net/mptcp/ctrl.c); its subflows are closed then.
    MptcpTimeout,
    /// The kernel gives up retransmitting (`tcp_orphan_retries`), if the peer does not answer before.
    Retransmits,
    /// The kernel gives up probing a closed window: after `tcp_orphan_retries` probes without an answer, or when the timeout
    /// between two answered ones has grown to its maximum (`tcp_probe_timer`, net/ipv4/tcp_timer.c).
    Persist,
    /// When its holder lets go.
    Holder,
    /// Its namespace has gone, and the leftover with it.
    NetnsGone,
    /// It is free already.
    Now,
    Unknown,
}

/// What may end a leftover before its timer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "earlier_by")
)]
pub enum EarlierBy {
    /// A SYN on the same addresses: a listener accepts it, and where there is none, the client answers the ACK that it gets
    /// with an RST, which ends the TIME_WAIT unless `tcp_rfc1337` is set (`tcp_timewait_state_process`,
    /// net/ipv4/tcp_minisocks.c).
    Syn,
    /// The peer's RST, or data of the peer, which is answered by one (`tcp_timewait_state_process`).
    Rst,
    /// An answer of the peer: an ACK, or an RST in its place.
    Ack,
}

impl FreeRule {
    /// What may end a leftover of that rule sooner; `None` where nothing does that could be seen to come.
    #[must_use]
    pub const fn earlier_by(self) -> Option<EarlierBy> {
        match self {
            Self::TimewaitTimer => Some(EarlierBy::Syn),
            Self::FinTimeout => Some(EarlierBy::Rst),
            Self::MptcpTimeout | Self::Retransmits | Self::Persist => Some(EarlierBy::Ack),
            Self::Holder | Self::NetnsGone | Self::Now | Self::Unknown => None,
        }
    }
}
