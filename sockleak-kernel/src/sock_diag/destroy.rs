//! SOCK_DESTROY: the kernel ends a socket that nobody has any more.
//!
//! The kernel looks the addresses up, among connections first and then among listeners, and only then compares the
//! cookie (`inet_diag_find_one_icsk`, net/ipv4/inet_diag.c). Without a cookie it would take whatever has the
//! addresses by then: the restarted service, or its listener.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::BufMut;
use sockleak_core::leftover::Removable;
use sockleak_core::observed::{Family, Protocol, Sighting};

use super::{SockDiag, SockDiagError, wire};
use crate::proc;

/// include/uapi/linux/sock_diag.h.
const SOCK_DESTROY: u16 = 21;

/// Why a socket was not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// ENOENT: no socket with these addresses has this cookie.
    #[error("the socket is gone already")]
    Gone,
    /// EOPNOTSUPP.
    #[error(
        "this kernel cannot destroy such a socket: it is older than 6.0, which only matters for TIME_WAIT and \
         FIN_WAIT2, or was built without CONFIG_INET_DIAG_DESTROY"
    )]
    Unsupported,
    /// EPERM.
    #[error("destroying sockets needs CAP_NET_ADMIN in their network namespace; run it with sudo")]
    NotPermitted,
    /// The kernel answered with another errno.
    #[error("the kernel refused to destroy the socket: {}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

impl From<i32> for DestroyError {
    fn from(errno: i32) -> Self {
        match errno {
            libc::ENOENT => Self::Gone,
            libc::EOPNOTSUPP => Self::Unsupported,
            libc::EPERM => Self::NotPermitted,
            other => Self::Refused(other),
        }
    }
}

/// Whether this process has CAP_NET_ADMIN, in its user namespace at least. The kernel asks for it only once it has
/// found the socket (`sock_diag_destroy`, net/core/sock_diag.c).
#[must_use]
pub fn may_destroy() -> bool {
    /// include/uapi/linux/capability.h.
    const CAP_NET_ADMIN: u64 = 12;
    let status = proc::status(std::process::id()).unwrap_or_default();
    status
        .effective_capabilities
        .is_some_and(|set| set >> CAP_NET_ADMIN & 1 == 1)
}

impl SockDiag {
    /// Destroys a leftover of this connection's network namespace. A time-wait socket goes without a word; for
    /// FIN_WAIT1 and FIN_WAIT2 an RST is sent (`tcp_abort`, net/ipv4/tcp.c).
    ///
    /// # Errors
    ///
    /// [`DestroyError::Gone`] when another socket, or none, has its addresses by now: nothing was touched then.
    pub fn destroy(&mut self, leftover: &Removable) -> Result<(), DestroyError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode(leftover.sighting(), self.sequence);
        self.send(&request).map_err(SockDiagError::from)?;
        loop {
            let length = self.receive().map_err(SockDiagError::from)?;
            let datagram = self.buffer.get(..length).unwrap_or(&self.buffer);
            if let Some(answer) = decode(datagram, self.sequence)? {
                return answer;
            }
        }
    }
}

fn encode(leftover: &Sighting, sequence: u32) -> Vec<u8> {
    let mut out = wire::request(SOCK_DESTROY, libc::NLM_F_ACK, sequence);
    let (local, remote) = (leftover.local, leftover.remote);
    // struct inet_diag_req_v2, with no extensions and no states.
    out.put_u8(wire::family_number(if local.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    }));
    out.put_u8(wire::protocol_number(Protocol::Tcp) as u8);
    out.put_bytes(0, 6);
    // struct inet_diag_sockid.
    out.put_u16(local.port());
    out.put_u16(remote.port());
    put_address(&mut out, local);
    put_address(&mut out, remote);
    out.put_u32_ne(leftover.interface);
    out.put_u32_ne(leftover.cookie as u32);
    out.put_u32_ne((leftover.cookie >> 32) as u32);
    wire::finish(out)
}

fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_slice(&ip.octets());
            out.put_bytes(0, 12);
        }
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
}

/// What a datagram says about the request of that sequence number; `None` if it says nothing about it.
fn decode(mut datagram: &[u8], sequence: u32) -> Result<Option<Result<(), DestroyError>>, SockDiagError> {
    while let Some(message) = wire::next_message(&mut datagram)? {
        if message.answers == sequence && message.kind == libc::NLMSG_ERROR {
            return Ok(Some(match wire::refuse(message.payload) {
                Err(SockDiagError::Refused(errno)) => Err(errno.into()),
                other => other.map_err(DestroyError::from),
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use sockleak_core::observed::State;
    use sockleak_core::testing::{addr, sighting, socket};

    use super::*;

    fn leftover(local: &str, remote: &str) -> Sighting {
        Sighting {
            local: addr(local),
            remote: addr(remote),
            cookie: 0x22_0000_0011,
            interface: 7,
            ..sighting(&socket(State::Established).build(), State::TimeWait)
        }
    }

    #[test]
    fn a_request_names_one_socket() {
        let bytes = encode(&leftover("127.0.0.1:8080", "127.0.0.2:40310"), 5);
        assert_eq!(bytes.len(), 16 + 56);
        assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], SOCK_DESTROY.to_ne_bytes());
        // NLM_F_REQUEST and NLM_F_ACK, not NLM_F_DUMP.
        assert_eq!(bytes[6..8], 5_u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 5_u32.to_ne_bytes());
        assert_eq!(bytes[16..24], [libc::AF_INET as u8, 6, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..28], [0x1f, 0x90, 0x9d, 0x76]);
        assert_eq!(bytes[28..34], [127, 0, 0, 1, 0, 0]);
        assert_eq!(bytes[44..50], [127, 0, 0, 2, 0, 0]);
        assert_eq!(bytes[60..64], 7_u32.to_ne_bytes());
        assert_eq!(bytes[64..68], 0x11_u32.to_ne_bytes());
        assert_eq!(bytes[68..72], 0x22_u32.to_ne_bytes());
        let mapped = encode(&leftover("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.2]:90"), 5);
        assert_eq!(mapped[16], libc::AF_INET6 as u8);
        assert_eq!(mapped[38..44], [0xff, 0xff, 127, 0, 0, 1]);
    }

    fn answer(sequence: u32, errno: i32) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32_ne(20);
        out.put_u16_ne(libc::NLMSG_ERROR as u16);
        out.put_u16_ne(0);
        out.put_u32_ne(sequence);
        out.put_u32_ne(0);
        out.put_i32_ne(-errno);
        out
    }

    #[test]
    fn an_errno_has_a_meaning() {
        let told = |errno| decode(&answer(5, errno), 5).unwrap().unwrap();
        assert!(told(0).is_ok());
        assert!(matches!(told(libc::ENOENT), Err(DestroyError::Gone)));
        assert!(matches!(told(libc::EOPNOTSUPP), Err(DestroyError::Unsupported)));
        assert!(matches!(told(libc::EPERM), Err(DestroyError::NotPermitted)));
        assert!(matches!(
            told(libc::EBUSY),
            Err(DestroyError::Refused(libc::EBUSY))
        ));
    }

    #[test]
    fn other_answers_are_passed_over() {
        assert!(decode(&answer(4, libc::EPERM), 5).unwrap().is_none());
        let both = [answer(4, libc::EPERM), answer(5, 0)].concat();
        assert!(decode(&both, 5).unwrap().unwrap().is_ok());
        assert!(decode(&answer(5, 0)[..15], 5).is_err());
    }
}
