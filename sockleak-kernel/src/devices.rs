//! Network devices by their numbers and names, and whose VRF they are in: rtnetlink, as bytes.
//!
//! The structs are those of include/uapi/linux/rtnetlink.h and include/uapi/linux/if_link.h.

use std::ffi::CStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use bytes::{Buf, BufMut as _};
use sockleak_core::port::Device;

use crate::netns::{Netns, within};

/// `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// The answer about one link is far below this.
const LARGEST: usize = 64 << 10;

/// A link as the kernel tells of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    master: u32,
    is_vrf: bool,
}

/// The device with that number; `None` if there is none.
///
/// # Errors
/// When the namespace cannot be entered, or netlink fails.
pub fn by_index(namespace: &Netns, index: u32) -> io::Result<Option<Device>> {
    find(namespace, index, "")
}

/// The device with that name; `None` if there is none.
///
/// # Errors
/// As [`by_index`].
pub fn by_name(namespace: &Netns, name: &str) -> io::Result<Option<Device>> {
    // No device has such a name, and netlink would say something else.
    if name.is_empty() || name.len() >= libc::IF_NAMESIZE {
        return Ok(None);
    }
    find(namespace, 0, name)
}

fn find(namespace: &Netns, index: u32, name: &str) -> io::Result<Option<Device>> {
    within(namespace.as_fd(), || {
        let Some(link) = ask(index, name)? else {
            return Ok(None);
        };
        // `l3mdev_master_ifindex_rcu` (net/l3mdev/l3mdev.c).
        let vrf = match link.master {
            _ if link.is_vrf => link.index,
            0 => 0,
            master => ask(master, "")?.map_or(0, |master| if master.is_vrf { master.index } else { 0 }),
        };
        // With it, sockets of all VRFs share their ports (`inet_sk_bound_l3mdev`, include/net/inet_sock.h).
        let shared = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_l3mdev_accept");
        let shares = shared.is_ok_and(|text| text.trim() != "0");
        Ok(Some(Device {
            index: link.index,
            name: link.name,
            vrf: if shares { 0 } else { vrf },
        }))
    })
}

fn ask(index: u32, name: &str) -> io::Result<Option<Link>> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: The call takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let request = request(index, name);
    // SAFETY: The pointer is to so many bytes, which the kernel only reads.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = vec![0_u8; LARGEST];
    // SAFETY: The pointer is to so many bytes, which the kernel may write.
    let length = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    match usize::try_from(length) {
        Ok(length) => read(&answer[..length]),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn request(index: u32, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.put_u32_ne(0);
    out.put_u16_ne(libc::RTM_GETLINK);
    out.put_u16_ne(libc::NLM_F_REQUEST as u16);
    out.put_bytes(0, 8);
    out.put_u32_ne(0);
    out.put_u32_ne(index);
    out.put_bytes(0, 8);
    if !name.is_empty() {
        out.put_u16_ne(4 + name.len() as u16 + 1);
        out.put_u16_ne(IFLA_IFNAME);
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let length = out.len() as u32;
    out[..4].copy_from_slice(&length.to_ne_bytes());
    out
}

/// The link in an answer; `None` where it says that there is none.
fn read(mut answer: &[u8]) -> io::Result<Option<Link>> {
    let broken = || io::Error::new(ErrorKind::InvalidData, "netlink's answer is too short");
    if answer.len() < NETLINK_HEADER + 4 {
        return Err(broken());
    }
    let _length = answer.get_u32_ne();
    let kind = answer.get_u16_ne();
    answer.advance(NETLINK_HEADER - 6);
    if kind == libc::NLMSG_ERROR as u16 {
        return match answer.get_i32_ne().checked_neg() {
            None | Some(0) => Err(broken()),
            Some(libc::ENODEV) => Ok(None),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
        };
    }
    if answer.len() < LINK_HEADER {
        return Err(broken());
    }
    answer.advance(4);
    let mut link = Link {
        index: answer.get_u32_ne(),
        ..Link::default()
    };
    answer.advance(LINK_HEADER - 8);
    for (kind, value) in attributes(answer) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.master = <[u8; 4]>::try_from(value).map_or(0, u32::from_ne_bytes),
            IFLA_LINKINFO => {
                let mut info = attributes(value);
                link.is_vrf = info.any(|(kind, value)| kind == IFLA_INFO_KIND && text(value) == "vrf");
            }
            _ => {}
        }
    }
    Ok(Some(link))
}

/// The attributes in these bytes, up to the first that is broken.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_TYPE_MASK` of include/uapi/linux/netlink.h.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(value).map_or(value, CStr::to_bytes);
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_loopback_device_is_there_by_number_and_name() {
        let own = Netns::current().unwrap();
        let lo = by_name(&own, "lo").unwrap().unwrap();
        assert_eq!((lo.name.as_str(), lo.vrf), ("lo", 0));
        assert_eq!(by_index(&own, lo.index).unwrap(), Some(lo));
        for name in ["no-such-device", "", "a-name-of-16-bytes"] {
            assert_eq!(by_name(&own, name).unwrap(), None);
        }
        assert_eq!(by_index(&own, u32::MAX >> 1).unwrap(), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_a_link_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
