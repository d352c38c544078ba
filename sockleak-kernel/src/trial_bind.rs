//! What `bind()` says of a local address whatever has the port: it is tried, without a port.

use std::io;
use std::mem::zeroed;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use sockleak_core::port::{LocalAddress, Refusal};

use crate::netns::{Netns, within};

/// Tries each of the addresses in that namespace. Those that are refused, and why; what is refused for another reason,
/// such as a program of the caller's cgroup, is not told.
///
/// # Errors
/// When the namespace cannot be entered, or no socket can be made.
pub fn refusals(
    namespace: &Netns,
    addresses: impl IntoIterator<Item = LocalAddress> + Send,
) -> io::Result<Vec<(LocalAddress, Refusal)>> {
    use std::os::fd::AsFd as _;
    within(namespace.as_fd(), || {
        let mut refused = Vec::new();
        for address in addresses {
            match attempt(&address) {
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    // A kernel without IPv6 has none of its addresses.
                    Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => {
                        refused.push((address, Refusal::NotAvailable));
                    }
                    // No device has that number.
                    Some(libc::ENXIO) => refused.push((address, Refusal::NoDevice)),
                    Some(libc::EINVAL) => refused.push((address, Refusal::Invalid)),
                    Some(libc::EMFILE | libc::ENFILE) => return Err(error),
                    _ => {}
                },
            }
        }
        Ok(refused)
    })
}

/// With IP_BIND_ADDRESS_NO_PORT and no port, `bind()` looks at the address alone (`__inet_bind`, net/ipv4/af_inet.c;
/// `__inet6_bind`, net/ipv6/af_inet6.c): nothing is taken from anybody.
fn attempt(address: &LocalAddress) -> io::Result<()> {
    let family = match address.address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    // SAFETY: The call takes no pointers.
    let socket = checked(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: The descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    set(&socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    if address.device != 0 {
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: The pointer is to as many bytes as a name may have. The option takes any number, unlike SO_BINDTODEVICE.
        if unsafe { libc::if_indextoname(address.device, name.as_mut_ptr()) }.is_null() {
            return Err(io::Error::last_os_error());
        }
        /// SO_BINDTOIFINDEX of include/uapi/asm-generic/socket.h.
        const SO_BINDTOIFINDEX: libc::c_int = 62;
        set(
            &socket,
            libc::SOL_SOCKET,
            SO_BINDTOIFINDEX,
            address.device.cast_signed(),
        )?;
    }
    match address.address {
        IpAddr::V4(ip) => {
            // SAFETY: A struct of integers may be zero.
            let mut name: libc::sockaddr_in = unsafe { zeroed() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
            bind(&socket, &name)
        }
        IpAddr::V6(ip) => {
            set(&socket, libc::SOL_IPV6, libc::IPV6_V6ONLY, address.v6only.into())?;
            // SAFETY: A struct of integers may be zero.
            let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_addr.s6_addr = ip.octets();
            bind(&socket, &name)
        }
    }
}

fn bind<T>(socket: &OwnedFd, name: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let name = std::ptr::from_ref(name).cast();
    // SAFETY: The pointer is to an address of that length, which the kernel only reads.
    checked(unsafe { libc::bind(socket.as_raw_fd(), name, length) }).map(drop)
}

fn set(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: The pointer is to an int, which the kernel only reads.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    })
    .map(drop)
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn refusal(address: &str, v6only: bool, device: u32) -> Option<Refusal> {
        let address = LocalAddress {
            address: address.parse().unwrap(),
            v6only,
            device,
        };
        let refused = refusals(&Netns::current().unwrap(), [address]).unwrap();
        refused.first().map(|(_, refusal)| *refusal)
    }

    #[test]
    fn tells_what_is_no_address_of_this_namespace() {
        let sysctl = |family| {
            Netns::current()
                .unwrap()
                .sysctl_u32(&format!("net/{family}/ip_nonlocal_bind"))
        };
        // This machine may allow everything.
        let not_local = |family| (sysctl(family).ok() == Some(0)).then_some(Refusal::NotAvailable);
        assert_eq!(refusal("127.0.0.1", false, 0), None);
        assert_eq!(refusal("0.0.0.0", false, 0), None);
        assert_eq!(refusal("192.0.2.1", false, 0), not_local("ipv4"));
        assert_eq!(
            refusal("127.0.0.1", false, u32::MAX >> 1),
            Some(Refusal::NoDevice)
        );
        // A kernel without IPv6 has none of these.
        if TcpListener::bind("[::]:0").is_ok() {
            assert_eq!(refusal("::ffff:127.0.0.1", false, 0), None);
            assert_eq!(refusal("::ffff:127.0.0.1", true, 0), Some(Refusal::Invalid));
            assert_eq!(refusal("2001:db8::1", false, 0), not_local("ipv6"));
            assert_eq!(refusal("fe80::1", false, 0), Some(Refusal::Invalid));
        }
    }

    #[test]
    fn takes_no_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(refusal("127.0.0.1", false, 0), None);
        drop(listener);
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
