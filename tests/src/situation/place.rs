//! Network namespaces in which situations are made.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use crate::net::{self, checked};
use crate::netlink::{Netlink, attribute};
use crate::peer::drop_everything;
use crate::sandbox;

/// The addresses of the device that is not loopback.
pub const LAN4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const LAN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
/// No address of the namespace.
pub const FLOATING4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
pub const FLOATING6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// Where the ports of the situations begin, those for which bind() takes a right, and the others.
const LOW_PORTS: u16 = 10;
const PORTS: u16 = 2000;
/// Below it no port is left over for connect() to choose.
const EPHEMERAL: &str = "61000 65535";
const HELPER: u16 = 60_001;
const MPTCP_HELPER: u16 = 60_002;
const DEAF: u16 = 60_003;

/// A network namespace with addresses, a second device, and listeners that the situations connect to.
pub struct Place {
    netns: OwnedFd,
    inode: u32,
    /// `ip_nonlocal_bind` is on.
    pub nonlocal: bool,
    /// They accept whoever comes, by TCP or by MPTCP.
    helper: OwnedFd,
    mptcp_helper: Option<OwnedFd>,
    /// It answers no SYN.
    _deaf: OwnedFd,
    next_port: Cell<u16>,
    next_low_port: Cell<u16>,
}

impl Place {
    /// Makes one, and leaves the calling thread in it.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when the kernel has no veth.
    pub fn make(nonlocal: bool) -> io::Result<Self> {
        sandbox::enter()?;
        let netns = File::open("/proc/thread-self/ns/net")?;
        let has_ipv6 = has_ipv6();
        add_device()?;
        sandbox::sysctl("ipv4/ip_local_port_range", EPHEMERAL);
        // Both roles, without cookies.
        sandbox::sysctl("ipv4/tcp_fastopen", 0x207);
        if nonlocal {
            sandbox::sysctl("ipv4/ip_nonlocal_bind", 1);
            if has_ipv6 {
                sandbox::sysctl("ipv6/ip_nonlocal_bind", 1);
            }
        }
        let listener = |port, protocol| {
            let any: IpAddr = if has_ipv6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let address = SocketAddr::new(any, port);
            let socket = net::socket(address, protocol, libc::SOCK_NONBLOCK)?;
            net::bind(&socket, address)?;
            net::listen(&socket, 1024)?;
            Ok::<_, io::Error>(socket)
        };
        let deaf = listener(DEAF, 0)?;
        drop_everything(&deaf);
        Ok(Self {
            inode: u32::try_from(netns.metadata()?.ino()).map_err(io::Error::other)?,
            netns: netns.into(),
            nonlocal,
            helper: listener(HELPER, 0)?,
            mptcp_helper: listener(MPTCP_HELPER, libc::IPPROTO_MPTCP).ok(),
            _deaf: deaf,
            next_port: Cell::new(PORTS),
            next_low_port: Cell::new(LOW_PORTS),
        })
    }

    /// Moves the calling thread into it.
    ///
    /// # Panics
    /// Without CAP_SYS_ADMIN.
    pub fn enter(&self) {
        // SAFETY: setns takes two integers; it changes the namespace of this thread alone.
        let entered = checked(unsafe { libc::setns(self.netns.as_raw_fd(), libc::CLONE_NEWNET) });
        entered.expect("root may enter a namespace that it made");
    }

    #[must_use]
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    #[must_use]
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// A port that no situation had, below those that everybody may bind or above. `None` when there is none any more.
    pub fn unused_port(&self, low: bool) -> Option<u16> {
        let (next, end) = if low {
            (&self.next_low_port, 1024)
        } else {
            (&self.next_port, HELPER - 1)
        };
        let port = next.get();
        next.set(port + 1);
        (port < end).then_some(port)
    }

    /// Where a client connects to be accepted.
    #[must_use]
    pub fn helper(&self, mptcp: bool) -> u16 {
        if mptcp { MPTCP_HELPER } else { HELPER }
    }

    /// Where a client connects to stay in SYN_SENT.
    #[must_use]
    pub fn deaf(&self) -> u16 {
        DEAF
    }

    /// The other end of the connection of that client.
    ///
    /// # Errors
    /// `WouldBlock` when it has not arrived.
    pub fn accept(&self, mptcp: bool) -> io::Result<OwnedFd> {
        let helper = if mptcp {
            self.mptcp_helper.as_ref()
        } else {
            Some(&self.helper)
        };
        net::accept(helper.ok_or_else(|| io::Error::from(ErrorKind::Unsupported))?)
    }
}

#[must_use]
pub fn has_ipv6() -> bool {
    fs::exists("/proc/net/tcp6").unwrap_or_default()
}

/// Adds the pair v0 and veth0, switches both on, and gives the first its addresses.
fn add_device() -> io::Result<()> {
    sandbox::add_device(c"v0", "veth")?;
    sandbox::switch_on(c"v0")?;
    sandbox::switch_on(c"veth0")?;
    // SAFETY: The string ends with a zero and outlives the call.
    let index = unsafe { libc::if_nametoindex(c"v0".as_ptr()) };
    let netlink = Netlink::open(libc::NETLINK_ROUTE);
    let new = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let address = |family: i32, bits: u8, octets: &[u8]| {
        let family = u8::try_from(family).expect("a small number");
        let no_detection = u8::try_from(libc::IFA_F_NODAD).expect("a small number");
        // struct ifaddrmsg of include/uapi/linux/if_addr.h.
        let mut request = vec![family, bits, no_detection, 0];
        request.extend(index.to_ne_bytes());
        request.extend(attribute(libc::IFA_LOCAL, octets));
        request.extend(attribute(libc::IFA_ADDRESS, octets));
        netlink.ask(libc::RTM_NEWADDR, new, &request).map(drop)
    };
    address(libc::AF_INET, 24, &LAN4.octets())?;
    if has_ipv6() {
        address(libc::AF_INET6, 64, &LAN6.octets())?;
        address(libc::AF_INET6, 64, &LINK_LOCAL.octets())?;
    }
    Ok(())
}
