//! Netlink by hand: what the standard library and a guest without tools do not offer.

use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::net::checked;

const HEADER: usize = 16;

pub struct Netlink(OwnedFd);

impl Netlink {
    /// A socket for that protocol, such as `NETLINK_SOCK_DIAG`, in the network namespace of the calling thread.
    #[track_caller]
    #[must_use]
    pub fn open(protocol: i32) -> Self {
        // SAFETY: socket takes three integers and touches no memory of ours.
        let fd = checked(unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol)
        });
        // SAFETY: The call has just made this descriptor, and nobody else owns it.
        Self(unsafe { OwnedFd::from_raw_fd(fd.expect("the kernel has that netlink")) })
    }

    /// Asks, and gives the payloads of all answers. `flags` come beside `NLM_F_REQUEST`: `NLM_F_DUMP`, or
    /// `NLM_F_ACK`, for which the kernel says that it has nothing more to say.
    ///
    /// # Errors
    /// The errno with which the kernel refuses.
    pub fn ask(&self, kind: u16, flags: i32, body: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).expect("flags have 16 bits");
        let mut message = Vec::new();
        message.extend(u32::try_from(HEADER + body.len()).expect("short").to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        // SAFETY: The pointer and the length describe `message`, which outlives the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 {
            return Err(Error::last_os_error());
        }
        let mut answers = Vec::new();
        while !self.receive(&mut answers)? {}
        Ok(answers)
    }

    /// Takes one datagram apart. True after the last answer.
    fn receive(&self, answers: &mut Vec<Vec<u8>>) -> std::io::Result<bool> {
        let mut buffer = vec![0_u8; 1 << 16];
        let socket = self.0.as_raw_fd();
        // SAFETY: The pointer and the length describe `buffer`, which outlives the call.
        let length = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let length = usize::try_from(length).map_err(|_| Error::last_os_error())?;
        let mut rest = &buffer[..length];
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let kind = i32::from(u16::from_ne_bytes([rest[4], rest[5]]));
            let payload = &rest[HEADER..length];
            match kind {
                libc::NLMSG_DONE => return Ok(true),
                libc::NLMSG_ERROR => {
                    let errno = i32::from_ne_bytes(payload[..4].try_into().expect("four bytes"));
                    return match errno {
                        0 => Ok(true),
                        errno => Err(Error::from_raw_os_error(-errno)),
                    };
                }
                _ => answers.push(payload.to_vec()),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// An attribute with its padding.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend(u16::try_from(4 + value.len()).expect("short").to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The value of the first attribute of that kind.
#[must_use]
pub fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        if u16::from_ne_bytes([attributes[2], attributes[3]]) == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
