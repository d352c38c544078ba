//! sock_diag: what the kernel says about every TCP socket of a network namespace, mini sockets included.
//!
//! One dump is a question about one protocol and one address family. It is not atomic: a socket that
//! becomes a time-wait mini socket meanwhile can be missing or there twice.

mod bound;
mod destroy;
mod error;
mod filter;
#[cfg(test)]
mod tests;
mod trial;
mod wire;

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use bound::lists_bound;
pub use destroy::{DestroyError, may_destroy};
use error::ATTEMPTS;
pub use error::SockDiagError;
pub use filter::Filter;
use sockleak_core::observed::{Family, Protocol, Sighting};
pub use trial::{TrialError, powers};
use wire::{Progress, Query};

use super::netns;

/// Larger than any datagram of a dump: the kernel makes them at most 32 KiB (`netlink_dump`, net/netlink/af_netlink.c).
const BUFFER: usize = 64 * 1024;

/// A connection to sock_diag in one network namespace. It keeps that namespace alive while it is open.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// Opens sock_diag in a network namespace; `None` is the caller's own.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered (another than the caller's needs CAP_SYS_ADMIN), or netlink
    /// sockets are not allowed here.
    pub fn open(namespace: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let socket = match namespace {
            Some(namespace) => netns::within(namespace, connect)?,
            None => connect()?,
        };
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Every socket of that protocol and family that the filter wants. IPv4 traffic of an IPv6 socket is in
    /// the IPv6 dump, with v4-mapped addresses.
    ///
    /// Besides the rows it gives each full socket a cookie, if it has none yet (`sock_diag_save_cookie`).
    ///
    /// # Errors
    ///
    /// [`SockDiagError::NoHandler`] when the kernel cannot list that protocol. After any error the
    /// connection may hold the rest of an answer and is to be dropped.
    pub fn dump(
        &mut self,
        protocol: Protocol,
        family: Family,
        filter: &Filter,
    ) -> Result<Vec<Sighting>, SockDiagError> {
        if filter.is_empty() {
            return Ok(Vec::new());
        }
        let query = query(protocol, family, filter);
        for _ in 0..ATTEMPTS {
            let mut rows = Vec::new();
            if self.ask(&query, |row| {
                rows.extend(Some(row).filter(|row| filter.matches(row)))
            })? {
                return Ok(rows);
            }
        }
        Err(SockDiagError::Interrupted)
    }

    /// Shows every socket of that protocol and family, without `tcp_info`, and keeps none: for as many as there may
    /// be. A dump that the kernel calls inconsistent is made again, so that a socket may be shown more than once.
    ///
    /// # Errors
    ///
    /// As [`SockDiag::dump`].
    pub fn each(
        &mut self,
        protocol: Protocol,
        family: Family,
        mut show: impl FnMut(Sighting),
    ) -> Result<(), SockDiagError> {
        let query = query(protocol, family, &Filter::all().without_tcp_info());
        for _ in 0..ATTEMPTS {
            if self.ask(&query, &mut show)? {
                return Ok(());
            }
        }
        Err(SockDiagError::Interrupted)
    }

    /// One dump, row by row; false if the kernel says that it is inconsistent.
    fn ask(&mut self, query: &Query, mut show: impl FnMut(Sighting)) -> Result<bool, SockDiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&wire::encode(query, self.sequence))?;
        let mut rows = Vec::new();
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            let datagram = self
                .buffer
                .get(..length)
                .ok_or(SockDiagError::Malformed("a datagram is larger than 64 KiB"))?;
            let progress: Progress = wire::decode(datagram, query.protocol, self.sequence, &mut rows)
                .map_err(|error| match error {
                    SockDiagError::Refused(libc::ENOENT) => SockDiagError::NoHandler(query.protocol),
                    other => other,
                })?;
            rows.drain(..).for_each(&mut show);
            interrupted |= progress.interrupted;
            if progress.done {
                return Ok(!interrupted);
            }
        }
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        retry(|| {
            // SAFETY: The pointer and the length are those of a live slice, which the kernel only reads.
            unsafe { libc::send(self.socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) }
        })
        .map(drop)
    }

    /// Receives a datagram and returns its full length, which is beyond the buffer if it was cut off.
    fn receive(&mut self) -> io::Result<usize> {
        let buffer = &mut self.buffer;
        let length = retry(|| {
            // SAFETY: The kernel writes at most `len` bytes into the buffer, which is borrowed mutably.
            unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_TRUNC,
                )
            }
        })?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(length)
    }
}

fn query(protocol: Protocol, family: Family, filter: &Filter) -> Query {
    Query {
        protocol,
        family,
        states: filter.state_bits(),
        end: filter.end(),
        ports: filter.ranges(),
        tcp_info: filter.wants_tcp_info(),
    }
}

/// Opens a netlink socket in the calling thread's namespace. Being connected to the kernel it takes
/// messages from nobody else.
fn connect() -> io::Result<OwnedFd> {
    // SAFETY: The call takes no pointers.
    let descriptor = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor was just opened, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: All bytes zero is a valid sockaddr_nl, and its port id 0 means the kernel.
    let mut kernel: libc::sockaddr_nl = unsafe { mem::zeroed() };
    kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    // SAFETY: The pointer is to a live sockaddr_nl of the length that is given.
    let status = unsafe {
        libc::connect(
            descriptor,
            (&raw const kernel).cast(),
            size_of_val(&kernel) as libc::socklen_t,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Repeats a system call while signals interrupt it.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(length) => return Ok(length),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
