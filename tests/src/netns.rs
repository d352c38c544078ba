//! The end of a network namespace, as the kernel tells it.

use std::fs::File;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::limit::wait_until;
use crate::net::{self, checked};

const RTM_NEWNSID: u16 = 88;
const RTM_DELNSID: u16 = 89;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const RTNLGRP_NSID: i32 = 28;
/// The name by which the namespace of the caller knows the other one.
const ID: i32 = 7;

/// Waits for the end of a namespace without keeping it alive: the kernel multicasts RTM_DELNSID in the namespace
/// of the caller (`cleanup_net`, net/core/net_namespace.c).
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches the namespace that a process is in.
    #[track_caller]
    #[must_use]
    pub fn of_process(pid: u32) -> Self {
        Self::new(pid).expect("root may name a namespace")
    }

    fn new(pid: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes three integers and touches no memory of ours.
        let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
        // SAFETY: The call has just made this descriptor, and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        net::set(
            &socket,
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            RTNLGRP_NSID,
        )?;
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        let request = request(namespace.as_raw_fd());
        // SAFETY: The pointer and the length describe `request`, which outlives the call.
        let sent = unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 {
            return Err(Error::last_os_error());
        }
        let watch = Self(socket);
        wait_until("a name for the namespace", || watch.hears(RTM_NEWNSID));
        Ok(watch)
    }

    /// Waits until the namespace is gone, and everything in it.
    #[track_caller]
    pub fn ends(&self) {
        wait_until("the end of the namespace", || self.hears(RTM_DELNSID));
    }

    /// Whether a message of that type about the namespace has arrived.
    fn hears(&self, kind: u16) -> bool {
        let mut bytes = [0_u8; 4096];
        let socket = self.0.as_raw_fd();
        // SAFETY: The pointer and the length describe `bytes`, which outlives the call.
        let length = unsafe { libc::recv(socket, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let mut rest = usize::try_from(length).map_or(&[][..], |length| &bytes[..length]);
        while let Some((message, tail)) = message(rest) {
            let (found, body) = message;
            // Its first attribute is the name.
            let id = body.get(8..12).and_then(|id| id.try_into().ok());
            if found == kind && id.map(i32::from_ne_bytes) == Some(ID) {
                return true;
            }
            rest = tail;
        }
        false
    }
}

type Message<'a> = (u16, &'a [u8]);

/// The type and the body of the first netlink message, and what follows it.
fn message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(16..length)?;
    Some((
        (kind, body),
        bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]),
    ))
}

/// RTM_NEWNSID: a header, `struct rtgenmsg`, and two attributes of 32 bits.
fn request(namespace: RawFd) -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST).expect("a small number");
    let mut bytes = Vec::new();
    bytes.extend(36_u32.to_ne_bytes());
    bytes.extend(RTM_NEWNSID.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 12]);
    for (attribute, value) in [(NETNSA_NSID, ID), (NETNSA_FD, namespace)] {
        bytes.extend(8_u16.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
    }
    bytes
}
