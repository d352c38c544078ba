mod holders;
mod kinds;
mod reading;
mod rule;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use socket2::{Domain, Socket, Type};
use sockleak_core::observed::{Family, Protocol, State};
use sockleak_core::port::{Answer, Request, Reuse, in_the_way};

use super::*;
use crate::netns::Netns;
use crate::sandbox;

const V4: (Domain, SocketAddr) = (Domain::IPV4, SocketAddr::V4(loopback()));
const V6: (Domain, SocketAddr) = (Domain::IPV6, v6(Ipv6Addr::LOCALHOST));
const MAPPED: (Domain, SocketAddr) = (Domain::IPV6, v6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));

const fn loopback() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)
}

const fn v6(address: Ipv6Addr) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(address, 0, 0, 0))
}

/// Runs a test in a network namespace of its own.
fn isolated(test: impl FnOnce(&Netns) + Send) {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                sandbox::isolate().unwrap();
                test(&Netns::current().unwrap());
            })
            .join()
            .unwrap();
    });
}

/// Raises the limit of this process to the hard limit, and returns that.
fn allow_all_descriptors() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: Both calls use one rlimit, which outlives them.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    usize::try_from(limit.rlim_max).unwrap()
}

/// A socket that is bound to a free port.
fn bound((domain, address): (Domain, SocketAddr), reuse: Reuse) -> (Socket, u16) {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_reuse_address(reuse.addr).unwrap();
    socket.set_reuse_port(reuse.port).unwrap();
    socket.bind(&address.into()).unwrap();
    let port = local(&socket).port();
    (socket, port)
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

fn may_bind(address: Ipv4Addr, port: u16, reuse: Reuse) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(reuse.addr).unwrap();
    socket.set_reuse_port(reuse.port).unwrap();
    socket.bind(&SocketAddr::from((address, port)).into()).is_ok()
}

/// The client and the server of a new connection.
fn connect(listener: &Socket) -> (Socket, Socket) {
    let address = local(listener);
    let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    client.connect(&address.into()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn inode(socket: &Socket) -> u64 {
    File::from(socket.as_fd().try_clone_to_owned().unwrap())
        .metadata()
        .unwrap()
        .ino()
}

/// Asks until a mini socket of the port is in that state: the last ACK may come after close() returned.
fn mini(reader: &mut PortReader, netns: &Netns, port: u16, state: State) -> PortOwner {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
        let found = owners.iter().find(|owner| owner.mini && owner.state == state);
        if let Some(found) = found {
            return found.clone();
        }
        assert!(Instant::now() < limit, "no mini socket in {state:?}: {owners:#?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The kernel's own words for each option that is read: getsockopt.
fn assert_as_the_kernel_says(owner: &PortOwner, socket: &Socket, netns: &Netns) {
    assert_eq!(owner.local, local(socket));
    assert_eq!(owner.netns, netns.inode());
    assert_eq!(
        owner.reuse,
        Some(Reuse::new(
            socket.reuse_address().unwrap(),
            socket.reuse_port().unwrap()
        ))
    );
    let v6 = owner.family == Family::Ipv6;
    assert_eq!(v6, local(socket).is_ipv6());
    assert_eq!(owner.v6only, v6.then(|| socket.only_v6().unwrap()));
    assert_eq!(owner.inode, inode(socket));
    assert_eq!(owner.uid, Some(0));
    assert_eq!((owner.device, owner.protocol), (0, Protocol::Tcp));
    assert!(!owner.mini && owner.sk != 0);
}
