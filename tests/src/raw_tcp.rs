//! Single TCP segments, seen and forged: what no ordinary socket does to a TIME_WAIT.

use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::limit::wait_until;
use crate::net::{self, checked};

pub const FIN: u8 = 1;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const TCP_HEADER: usize = 20;

/// A raw socket: it sees every TCP segment that arrives in its network namespace from now on.
pub struct RawTcp(OwnedFd);

/// What of a segment the tests are interested in.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
}

impl RawTcp {
    #[track_caller]
    #[must_use]
    pub fn open() -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes three integers and touches no memory of ours.
        let fd = checked(unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_TCP) });
        // SAFETY: The call has just made this descriptor, and nobody else owns it.
        Self(unsafe { OwnedFd::from_raw_fd(fd.expect("root may have a raw socket")) })
    }

    /// Waits for a segment with that flag from one address to the other, among those that have arrived.
    #[track_caller]
    #[must_use]
    pub fn sees(&self, flag: u8, source: SocketAddr, destination: SocketAddr) -> Segment {
        let mut found = None;
        wait_until("a segment", || {
            while let Some(segment) = self.receive() {
                if segment.flags & flag != 0
                    && SocketAddr::V4(segment.source) == source
                    && SocketAddr::V4(segment.destination) == destination
                {
                    found = Some(segment);
                }
            }
            found.is_some()
        });
        found.expect("it was waited for")
    }

    fn receive(&self) -> Option<Segment> {
        let mut bytes = [0_u8; 2048];
        let socket = self.0.as_raw_fd();
        // SAFETY: The pointer and the length describe `bytes`, which outlives the call.
        let length = unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let packet = bytes.get(..usize::try_from(length).ok()?)?;
        let header = usize::from(packet.first()? & 0xf) * 4;
        let tcp = packet.get(header..)?;
        let word = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        Some(Segment {
            source: SocketAddrV4::new(Ipv4Addr::from(word(packet, 12)?), port(0)?),
            destination: SocketAddrV4::new(Ipv4Addr::from(word(packet, 16)?), port(2)?),
            sequence: word(tcp, 4)?,
            acknowledgement: word(tcp, 8)?,
            flags: *tcp.get(13)?,
        })
    }

    /// Sends a segment without data and without options.
    #[track_caller]
    pub fn send(&self, segment: Segment) {
        let bytes = segment.bytes();
        let (storage, length) = net::raw(segment.destination.into());
        // SAFETY: The pointers and lengths describe `bytes` and `storage`, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const storage).cast(),
                length,
            )
        };
        let all = isize::try_from(size_of_val(&bytes)).expect("a small number");
        assert_eq!(sent, all, "{}", Error::last_os_error());
    }
}

impl Segment {
    fn bytes(self) -> [u8; TCP_HEADER] {
        let mut bytes = [0; TCP_HEADER];
        bytes[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        bytes[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        // The length of the header in words of 32 bits.
        bytes[12] = 5 << 4;
        bytes[13] = self.flags;
        bytes[14..16].copy_from_slice(&1024_u16.to_be_bytes());
        let checksum = self.checksum(&bytes);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The internet checksum over the pseudo header and the header (RFC 9293, section 3.1).
    fn checksum(self, header: &[u8; TCP_HEADER]) -> u16 {
        let words = |bytes: &[u8]| -> u32 {
            bytes
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum()
        };
        let mut sum = words(&self.source.ip().octets()) + words(&self.destination.ip().octets());
        sum += 6 + u32::try_from(TCP_HEADER).expect("a small number") + words(header);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("it was folded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_of_everything_is_zero() {
        let segment = Segment {
            source: "127.0.0.1:8080".parse().unwrap(),
            destination: "127.0.0.1:40310".parse().unwrap(),
            sequence: 0xdead_beef,
            acknowledgement: 7,
            flags: ACK,
        };
        assert_eq!(segment.checksum(&segment.bytes()), 0);
    }
}
