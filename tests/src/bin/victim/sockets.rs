//! Further sockets and descriptors.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Error};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::process;

use sockleak_tests::net::{self, Family, checked};

use crate::{Victim, number};

impl Victim {
    /// Gives a socket that descriptor too, or the last one that the limit allows. Returns it.
    pub fn duplicate_to(&mut self, fd: &str, index: &str) -> io::Result<i32> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: getrlimit writes one rlimit, which outlives the call.
        checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
        let fd = if fd == "last" {
            i32::try_from(limit.rlim_max - 1).map_err(Error::other)?
        } else {
            number(fd)?
        };
        limit.rlim_max = limit.rlim_max.max(u64::from(fd.unsigned_abs()) + 1);
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit reads one rlimit, which outlives the call.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
        let socket = self.socket(index)?.as_raw_fd();
        // SAFETY: dup2 takes two integers; nothing has that descriptor.
        let made = checked(unsafe { libc::dup2(socket, fd) })?;
        // SAFETY: The call has just made this descriptor, and nobody else owns it.
        self.doubles.push(unsafe { OwnedFd::from_raw_fd(made) });
        Ok(made)
    }

    /// Sockets that are not TCP, and an O_PATH descriptor, which has a socket's mode only.
    pub fn open_other_kinds(&mut self) -> io::Result<()> {
        self.doubles.push(UdpSocket::bind("127.0.0.1:0")?.into());
        let name = env::temp_dir().join(format!("sockleak-victim-{}", process::id()));
        self.doubles.push(UnixListener::bind(&name)?.into());
        let path = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&name);
        fs::remove_file(&name)?;
        self.doubles.push(path?.into());
        Ok(())
    }

    /// A second listener, and both ends of a connection to it.
    pub fn pair(&mut self) -> io::Result<()> {
        let address = Family::V4.address(0);
        let listener = net::socket(address, 0, 0)?;
        net::bind(&listener, address)?;
        net::listen(&listener, 1)?;
        let address = net::local_address(listener.as_fd())?;
        let client = net::socket(address, 0, 0)?;
        net::connect(&client, address)?;
        let accepted = net::accept(&listener)?;
        self.sockets.extend([listener, client, accepted]);
        Ok(())
    }

    /// Another listener at the same address, which SO_REUSEPORT allows.
    pub fn listen_beside(&mut self) -> io::Result<()> {
        let address = net::local_address(self.listener()?.as_fd())?;
        let beside = net::socket(address, 0, 0)?;
        net::set(&beside, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1_i32)?;
        net::bind(&beside, address)?;
        net::listen(&beside, 128)?;
        self.sockets.push(beside);
        Ok(())
    }
}

/// A socket of that family, or for that address, with the options that are named, bound to the port of `port=N` or to one
/// that the kernel chose.
pub fn bound(family: &str, options: &[&str]) -> io::Result<OwnedFd> {
    let port = options.iter().find_map(|option| option.strip_prefix("port="));
    let port = port.map_or(Ok(0), number)?;
    let address = match Family::named(family) {
        Some(family) => family.address(port),
        None => SocketAddr::new(family.parse().map_err(Error::other)?, port),
    };
    let socket = with_options(address, options)?;
    net::bind(&socket, address)?;
    Ok(socket)
}

/// What the kernel says to `bind()` and then to `listen()` of such a socket, in the words of a verdict.
pub fn restart(address: &str, options: &[&str]) -> io::Result<String> {
    let address = address.parse().map_err(Error::other)?;
    let socket = with_options(address, options)?;
    let bind = answer(net::bind(&socket, address))?;
    let listen = if bind == "ok" {
        answer(net::listen(&socket, 8))?
    } else {
        bind
    };
    Ok(format!("{bind} {listen}"))
}

fn answer(result: io::Result<()>) -> io::Result<&'static str> {
    match result {
        Ok(()) => Ok("ok"),
        Err(error) => match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Ok("in_use"),
            Some(libc::EADDRNOTAVAIL) => Ok("not_available"),
            Some(libc::EINVAL) => Ok("invalid"),
            Some(libc::EACCES) => Ok("permission"),
            _ => Err(error),
        },
    }
}

/// This process is that user's from now on, without any capability.
pub fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: setresuid takes three integers.
    checked(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// A socket belongs to the user by whose rights files are made, which every thread chooses for itself.
fn as_user<T>(uid: u32, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: setfsuid takes an integer.
    unsafe { libc::setfsuid(uid) };
    let made = make();
    // SAFETY: As above.
    unsafe { libc::setfsuid(0) };
    made
}

fn with_options(address: SocketAddr, options: &[&str]) -> io::Result<OwnedFd> {
    let has = |name| i32::from(options.contains(&name));
    let protocol = if options.contains(&"mptcp") {
        libc::IPPROTO_MPTCP
    } else {
        0
    };
    let value = |name| options.iter().find_map(|option| option.strip_prefix(name));
    let socket = match value("user=") {
        Some(uid) => as_user(number(uid)?, || net::socket(address, protocol, 0))?,
        None => net::socket(address, protocol, 0)?,
    };
    if let Some(device) = value("device=") {
        net::bind_to_device(&socket, device)?;
    }
    net::set(&socket, libc::SOL_IP, libc::IP_FREEBIND, has("freebind"))?;
    net::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, has("reuseaddr"))?;
    net::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, has("reuseport"))?;
    if address.is_ipv6() {
        net::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, has("v6only"))?;
    }
    Ok(socket)
}
