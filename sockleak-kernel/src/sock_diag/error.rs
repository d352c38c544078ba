//! Why sock_diag gave no answer.

use std::io;

use sockleak_core::observed::Protocol;

/// How often a dump that the kernel calls inconsistent is made again.
pub(super) const ATTEMPTS: usize = 4;

/// Why sock_diag gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// ENOENT: CONFIG_INET_DIAG, CONFIG_INET_TCP_DIAG or CONFIG_INET_MPTCP_DIAG is a module that cannot
    /// be loaded, or off.
    #[error("this kernel cannot list {} sockets; load the module: `sudo modprobe {}`", name(.0), module(.0))]
    NoHandler(Protocol),
    /// The kernel answered with another errno.
    #[error("the kernel refused to list sockets: {}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    #[error("cannot talk to sock_diag: {0}")]
    Io(#[from] io::Error),
    #[error("sock_diag gave a malformed answer: {0}")]
    Malformed(&'static str),
    #[error("the kernel's socket table changed during each of {ATTEMPTS} dumps")]
    Interrupted,
}

fn name(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Mptcp => "MPTCP",
    }
}

fn module(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp_diag",
        Protocol::Mptcp => "mptcp_diag",
    }
}
