//! Whether sock_diag lists sockets that are only bound, found out with one of this process.

use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::LazyLock;

use sockleak_core::observed::{Family, Protocol};

use super::{Filter, SockDiag, SockDiagError};

/// Sockets that are only bound are listed, as they are from 6.8 on (`inet_diag_dump_icsk`, net/ipv4/inet_diag.c); false
/// where that cannot be found out.
#[must_use]
pub fn lists_bound() -> bool {
    static LISTED: LazyLock<bool> = LazyLock::new(|| try_one().unwrap_or(false));
    *LISTED
}

fn try_one() -> Result<bool, SockDiagError> {
    let (_socket, port) = bind()?;
    let filter = Filter::all().local_ports([port]);
    let listed = SockDiag::open(None)?.dump(Protocol::Tcp, Family::Ipv4, &filter)?;
    Ok(!listed.is_empty())
}

/// A socket that is bound to a port of loopback which the kernel chooses.
fn bind() -> io::Result<(OwnedFd, u16)> {
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: All bytes zero is a valid sockaddr_in, and its port 0 leaves the choice to the kernel.
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
    // SAFETY: The call takes no pointers.
    let socket = check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: The descriptor was just opened, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: The pointer is to a live sockaddr_in of the length that is given.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), length) })?;
    let mut written = length;
    // SAFETY: The pointers are to a live sockaddr_in and to its length, which the kernel writes.
    check(unsafe {
        libc::getsockname(
            socket.as_raw_fd(),
            ptr::from_mut(&mut address).cast(),
            &raw mut written,
        )
    })?;
    Ok((socket, u16::from_be(address.sin_port)))
}

fn check(status: i32) -> io::Result<i32> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}
