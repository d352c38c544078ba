//! Who else takes local ports from connections to the destinations of a dead process.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use sockleak_core::observed::{Family, Protocol, Sighting, State};
use sockleak_kernel::netns::Netns;
use sockleak_kernel::sock_diag::{Filter, SockDiag, SockDiagError};

/// Everybody's sockets that take ports from connections to these remote ports: those that are connected to them, and
/// those that a bind() gave a port. `None` if there is no such port.
///
/// # Errors
/// When sock_diag is missing or broken.
pub fn sockets(namespace: &Netns, ports: &BTreeSet<u16>) -> Result<Option<Vec<Sighting>>, SockDiagError> {
    if ports.is_empty() {
        return Ok(None);
    }
    let bound = Filter::all().states(&[State::Listen, State::BoundInactive]);
    let connected = Filter::all().remote_ports(ports.iter().copied());
    let mut sock_diag = SockDiag::open(Some(namespace.as_fd()))?;
    let mut same_destination = Vec::new();
    // A v4-mapped connection, which is in the list of IPv6, takes a port from IPv4.
    for family in [Family::Ipv4, Family::Ipv6] {
        for filter in [&bound, &connected] {
            same_destination.extend(sock_diag.dump(Protocol::Tcp, family, filter)?);
        }
    }
    Ok(Some(same_destination))
}
