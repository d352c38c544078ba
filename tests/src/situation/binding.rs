//! A socket as `bind()` sees it, and what the kernel says of it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};

use crate::net::{self, checked};

/// Everything of a socket that decides whether it can have a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// A v4-mapped address is that of an IPv6 socket.
    pub address: IpAddr,
    pub v6only: bool,
    pub reuseaddr: bool,
    pub reuseport: bool,
    pub device: Device,
    pub user: u32,
    pub freebind: bool,
}

/// What SO_BINDTODEVICE names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    None,
    Loopback,
    /// The device of [`super::place::Place`] that is not loopback.
    Veth,
}

impl Device {
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Loopback => Some("lo"),
            Self::Veth => Some("v0"),
        }
    }
}

/// What the kernel says to `bind()` and then to `listen()`: the same word again where the first was no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Answers {
    pub bind: Word,
    pub listen: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    Ok,
    /// EADDRINUSE.
    InUse,
    /// EADDRNOTAVAIL.
    NotAvailable,
    /// EINVAL.
    Invalid,
    /// EACCES.
    Permission,
    /// Another errno.
    Other(i32),
    /// No word of the kernel, but what is said where something could not be seen.
    Unknown,
}

impl Word {
    fn of(result: &io::Result<()>) -> Self {
        let Err(error) = result else {
            return Self::Ok;
        };
        match error.raw_os_error().unwrap_or_default() {
            libc::EADDRINUSE => Self::InUse,
            libc::EADDRNOTAVAIL => Self::NotAvailable,
            libc::EINVAL => Self::Invalid,
            libc::EACCES => Self::Permission,
            other => Self::Other(other),
        }
    }
}

impl Binding {
    /// A socket with these options, of that user, which is not bound yet.
    ///
    /// # Errors
    /// When the kernel lacks the protocol or an option, or refuses it to that user.
    pub fn socket(&self, protocol: i32) -> io::Result<OwnedFd> {
        let socket = net::socket(SocketAddr::new(self.address, 0), protocol, 0)?;
        for (option, on) in [
            (libc::SO_REUSEADDR, self.reuseaddr),
            (libc::SO_REUSEPORT, self.reuseport),
        ] {
            if on {
                net::set(&socket, libc::SOL_SOCKET, option, 1_i32)?;
            }
        }
        if self.v6only {
            net::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1_i32)?;
        }
        if self.freebind && self.address.is_ipv4() {
            net::set(&socket, libc::IPPROTO_IP, libc::IP_FREEBIND, 1_i32)?;
        } else if self.freebind {
            net::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1_i32)?;
        }
        if let Some(name) = self.device.name() {
            let mut padded = [0_u8; libc::IFNAMSIZ];
            padded[..name.len()].copy_from_slice(name.as_bytes());
            net::set(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, padded)?;
        }
        Ok(socket)
    }

    /// Asks the kernel, as that user. What it made is closed again; the port's bucket remembers it all the same, as long
    /// as another socket has the port.
    ///
    /// # Panics
    /// When the kernel refuses an option.
    #[must_use]
    pub fn try_at(&self, port: u16) -> Answers {
        as_user(self.user, || {
            let socket = self.socket(0).expect("every kernel has these options");
            let bind = Word::of(&net::bind(&socket, SocketAddr::new(self.address, port)));
            let listen = match bind {
                Word::Ok => Word::of(&net::listen(&socket, 8)),
                refused => refused,
            };
            Answers { bind, listen }
        })
    }
}

/// Whether bind() with SO_REUSEADDR goes by what the sockets of the port had when they were bound, not by what they have
/// now.
///
/// # Panics
/// When the network namespace has no loopback.
#[must_use]
pub fn marks_reuseaddr() -> bool {
    let reusing = Binding {
        address: Ipv4Addr::LOCALHOST.into(),
        v6only: false,
        reuseaddr: true,
        reuseport: false,
        device: Device::None,
        user: 0,
        freebind: false,
    };
    let socket = reusing.socket(0).expect("any process may have a socket");
    net::bind(&socket, (Ipv4Addr::LOCALHOST, 0).into()).expect("loopback is up");
    net::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0_i32).expect("it may be taken back");
    let port = net::local_address(socket.as_fd()).expect("it is bound").port();
    reusing.try_at(port).bind == Word::Ok
}

/// Whether who has `::ffff:0.0.0.0` has every IPv4 address.
///
/// # Panics
/// When loopback is down.
#[must_use]
pub fn mapped_any_is_wildcard() -> bool {
    let plain = |ipv4: Ipv4Addr| Binding {
        address: ipv4.to_ipv6_mapped().into(),
        v6only: false,
        reuseaddr: false,
        reuseport: false,
        device: Device::None,
        user: 0,
        freebind: false,
    };
    let any = plain(Ipv4Addr::UNSPECIFIED);
    let socket = any.socket(0).expect("any process may have a socket");
    net::bind(&socket, SocketAddr::new(any.address, 0)).expect("a wildcard can be had");
    let port = net::local_address(socket.as_fd()).expect("it is bound").port();
    plain(Ipv4Addr::LOCALHOST).try_at(port).bind == Word::InUse
}

/// Runs `work` in this thread with the effective uid and the rights of that user, of which only root has any.
pub(super) fn as_user<T>(user: u32, work: impl FnOnce() -> T) -> T {
    // SAFETY: geteuid takes nothing and touches no memory.
    let before = unsafe { libc::geteuid() };
    if user == before {
        return work();
    }
    become_user(user);
    let result = work();
    become_user(before);
    result
}

/// The real and the saved uid of this thread stay those of root, which may be anybody.
fn become_user(user: u32) {
    const UNCHANGED: libc::c_long = -1;
    let user = libc::c_long::from(user);
    // SAFETY: The system call takes three integers, and unlike the function of the C library it changes this thread
    // alone.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, UNCHANGED, user, UNCHANGED) };
    checked(i32::try_from(result).expect("0 or -1")).expect("root may be anybody, and itself again");
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(device) = self.device.name() {
            write!(f, "%{device}")?;
        }
        for (name, on) in [
            ("v6only", self.v6only),
            ("reuseaddr", self.reuseaddr),
            ("reuseport", self.reuseport),
            ("freebind", self.freebind),
        ] {
            if on {
                write!(f, " {name}")?;
            }
        }
        write!(f, " user {}", self.user)
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bind {}, listen {}", self.bind, self.listen)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::InUse => f.write_str("in_use"),
            Self::NotAvailable => f.write_str("not_available"),
            Self::Invalid => f.write_str("invalid"),
            Self::Permission => f.write_str("permission"),
            Self::Other(errno) => write!(f, "errno {errno}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
