//! How many sockets living processes have open.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;

use sockleak_core::observed::{Family, OpenSockets, ProcessId, Protocol, State};
use sockleak_kernel::proc;
use sockleak_kernel::sock_diag::{SockDiag, SockDiagError};

use super::namespaces::Namespaces;

/// Counts the listeners and the other TCP sockets that living processes have open; `None` where these may not be looked
/// at. Looking gives every socket of their namespaces a cookie, which its time-wait mini socket will inherit.
///
/// # Errors
/// When sock_diag is missing or broken.
pub fn count(
    processes: &[ProcessId],
    namespaces: &mut Namespaces,
) -> Result<Option<OpenSockets>, SockDiagError> {
    let mut open: HashMap<u32, HashSet<u64>> = HashMap::new();
    for id in processes {
        let inodes = match proc::socket_inodes(id.pid) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            inodes => inodes.unwrap_or_default(),
        };
        let of = namespaces.of(*id);
        if of.is_empty() && !inodes.is_empty() {
            return Ok(None);
        }
        for inode in of {
            open.entry(inode).or_default().extend(&inodes);
        }
    }
    let mut count = OpenSockets::default();
    for (inode, mut sockets) in open {
        let Some(namespace) = namespaces.opened(inode) else {
            continue;
        };
        for protocol in [Protocol::Tcp, Protocol::Mptcp] {
            for family in [Family::Ipv4, Family::Ipv6] {
                let mut sock_diag = match SockDiag::open(Some(namespace.as_fd())) {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
                    opened => opened?,
                };
                let shown = sock_diag.each(protocol, family, |row| {
                    // Once: sock_diag shows the subflows of an MPTCP socket with its inode.
                    if sockets.remove(&row.inode) {
                        let which = if row.state == State::Listen {
                            &mut count.listeners
                        } else {
                            &mut count.connections
                        };
                        *which += 1;
                    }
                });
                // A kernel without MPTCP has no such sockets.
                if !matches!(shown, Err(SockDiagError::NoHandler(Protocol::Mptcp))) {
                    shown?;
                }
            }
        }
    }
    Ok(Some(count))
}
