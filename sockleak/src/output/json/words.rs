//! Enumerated words that the domain has no serde name for. Each is a type, so that the schema lists what can be written.

use serde::{Serialize, Serializer};
use sockleak_core::observed::{self, ResetReason, State};
use sockleak_core::port::{Answer, Reuse};

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "protocol"))]
pub(super) enum Protocol {
    Tcp,
    Mptcp,
}

impl From<observed::Protocol> for Protocol {
    fn from(protocol: observed::Protocol) -> Self {
        match protocol {
            observed::Protocol::Tcp => Self::Tcp,
            observed::Protocol::Mptcp => Self::Mptcp,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "family"))]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl From<observed::Family> for Family {
    fn from(family: observed::Family) -> Self {
        match family {
            observed::Family::Ipv4 => Self::Ipv4,
            observed::Family::Ipv6 => Self::Ipv6,
        }
    }
}

/// What happened to a watched process.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "event"))]
pub(super) enum Event {
    Fork,
    Exec,
}

/// How a process died.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "cause"))]
pub(super) enum Cause {
    Exit,
    Signal,
}

/// An option of a socket that a restart binds.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "flag"))]
pub(super) enum Flag {
    Reuseaddr,
    Reuseport,
}

impl Flag {
    pub(super) fn of(reuse: Reuse) -> Vec<Self> {
        let flags = [(reuse.addr, Self::Reuseaddr), (reuse.port, Self::Reuseport)];
        flags
            .into_iter()
            .filter_map(|(on, flag)| on.then_some(flag))
            .collect()
    }
}

/// What `bind()` and `listen()` answer.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "verdict"))]
pub(super) enum Verdict {
    Ok,
    InUse,
    NotAvailable,
    Invalid,
    Permission,
    Unknown,
}

impl From<Answer> for Verdict {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Ok => Self::Ok,
            Answer::InUse => Self::InUse,
            Answer::NotAvailable => Self::NotAvailable,
            Answer::Invalid => Self::Invalid,
            Answer::Permission => Self::Permission,
            Answer::Unknown => Self::Unknown,
        }
    }
}

/// The kernel's names of its reasons for an RST, as far as a verdict depends on them.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "reset_reason"))]
pub(super) enum Reset {
    TcpAbortOnData,
    TcpTimewaitSocket,
    TcpAbortOnClose,
    TcpAbortOnLinger,
    TcpAbortOnMemory,
    TcpState,
    TcpDisconnectWithData,
    Other,
}

impl From<ResetReason> for Reset {
    fn from(reason: ResetReason) -> Self {
        match reason {
            ResetReason::AbortOnData => Self::TcpAbortOnData,
            ResetReason::TimewaitSocket => Self::TcpTimewaitSocket,
            ResetReason::AbortOnClose => Self::TcpAbortOnClose,
            ResetReason::AbortOnLinger => Self::TcpAbortOnLinger,
            ResetReason::AbortOnMemory => Self::TcpAbortOnMemory,
            ResetReason::TcpState => Self::TcpState,
            ResetReason::DisconnectWithData => Self::TcpDisconnectWithData,
            ResetReason::Other => Self::Other,
        }
    }
}

/// A state by the kernel's own name.
#[derive(Clone, Copy)]
pub(super) struct StateName(pub(super) State);

impl Serialize for StateName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

/// A signal without its SIG; there is none for real-time signals.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct SignalName(&'static str);

impl SignalName {
    pub(super) fn of(signal: u8) -> Option<Self> {
        observed::signal_name(signal).map(Self)
    }
}

/// The id of a piece of advice.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct AdviceId(pub(super) &'static str);
