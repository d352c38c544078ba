//! By which rule the kernel frees a socket.

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
    /// A peer with a closed window keeps it alive.
    Persist,
    /// When its holder lets go.
    Holder,
    /// Its namespace has gone, and the leftover with it.
    NetnsGone,
    /// It is free already.
    Now,
    Unknown,
}
