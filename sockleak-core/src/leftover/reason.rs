//! Why a socket is left alone.

use serde::Serialize;

/// Why a socket is left alone, or why the kernel did not destroy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "reason"))]
pub enum Reason {
    Listener,
    /// Data can flow, or a handshake is on its way.
    LiveConnection,
    /// It is bound, and neither listens nor is connected.
    Bound,
    /// A file refers to it.
    Held,
    /// It belongs to an MPTCP connection, which may live on another subflow; sock_diag does not tell.
    Mptcp,
    /// It still sends, and living sockets have its port: it may be the answer of a service that lives.
    PortInUse,
    /// It still sends, and its peer may answer yet.
    Unacknowledged,
    /// It is known without its cookie, and so it cannot be told from a later socket.
    NoCookie,
    /// Its network namespace cannot be entered: nobody has it any more, or a privilege is missing.
    NetnsUnreachable,
    /// The kernel destroys no time-wait sockets: it is older than 6.0.
    TimeWaitUnsupported,
    /// The kernel drops what an orphan has to send, and its FIN, and keeps the socket, which may then never end
    /// (`tcp_abort` before "tcp: fix forever orphan socket caused by tcp_abort").
    OrphanDefect,
    /// The kernel may have that defect: it could not be tried.
    OrphanUntried,
    /// The kernel was built without CONFIG_INET_DIAG_DESTROY.
    Unsupported,
    /// CAP_NET_ADMIN is missing in its network namespace.
    NotPermitted,
    /// The kernel refused with an errno that is not expected.
    Refused,
}
