//! The little of the socket interface that the standard library does not offer: sockets without
//! SO_REUSEADDR, MPTCP, options, and sockets that are bound only.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A local address family as the tests name it.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    V4,
    V6,
    /// An IPv6 socket bound to `::ffff:127.0.0.1`.
    Mapped,
    /// An IPv4 wildcard socket.
    Any,
    /// An IPv6 wildcard socket that takes IPv4 as well.
    Dual,
}

impl Family {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "4" => Self::V4,
            "6" => Self::V6,
            "mapped" => Self::Mapped,
            "any" => Self::Any,
            "dual" => Self::Dual,
            _ => return None,
        })
    }

    /// Where a listener of this family binds.
    #[must_use]
    pub fn address(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, port).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
            Self::Any => (Ipv4Addr::UNSPECIFIED, port).into(),
            Self::Dual => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    }
}

/// Binds a socket to a device.
pub fn bind_to_device(socket: &OwnedFd, device: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(device.len()).map_err(io::Error::other)?;
    // SAFETY: The pointer and the length describe the name, which outlives the call.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            length,
        )
    })
    .map(drop)
}

/// A stream socket for that address, closed by exec like every socket of the standard library.
pub fn socket(address: SocketAddr, protocol: i32, flags: i32) -> io::Result<OwnedFd> {
    let domain = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: socket takes three integers and touches no memory of ours.
    let fd =
        checked(unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, protocol) })?;
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option whose value is a plain structure or an integer.
pub fn set<T: Copy>(socket: impl AsFd, level: i32, option: i32, value: T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: The pointer and the length describe `value`, which outlives the call.
    checked(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    })?;
    Ok(())
}

pub fn set_linger(socket: impl AsFd, seconds: i32) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: seconds,
    };
    set(socket, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

pub fn bind(socket: impl AsFd, address: SocketAddr) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: The pointer and the length describe `storage`, which outlives the call.
    checked(unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const storage).cast(), length) })?;
    Ok(())
}

pub fn listen(socket: impl AsFd, backlog: i32) -> io::Result<()> {
    // SAFETY: listen takes two integers and touches no memory of ours.
    checked(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) })?;
    Ok(())
}

/// Connects; for a non-blocking socket that is still on its way it is a success as well.
pub fn connect(socket: impl AsFd, address: SocketAddr) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: The pointer and the length describe `storage`, which outlives the call.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), (&raw const storage).cast(), length) };
    match checked(result) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other.map(drop),
    }
}

pub fn accept(socket: impl AsFd) -> io::Result<OwnedFd> {
    let listener = socket.as_fd().as_raw_fd();
    // SAFETY: Null pointers are allowed and mean that the address is not wanted.
    let fd = checked(unsafe {
        libc::accept4(
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    TcpListener::from(socket.try_clone_to_owned()?).local_addr()
}

/// The result of a system call, or its errno.
pub fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// An address as the kernel wants it, and its length.
#[must_use]
pub fn raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: All-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("a small number"),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is made to hold any address and is aligned for it.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).expect("a small number"),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: sockaddr_storage is made to hold any address and is aligned for it.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (
        storage,
        libc::socklen_t::try_from(length).expect("addresses are small"),
    )
}
