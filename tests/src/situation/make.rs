//! Makes the sockets of a situation on the running kernel.

use std::fs;
use std::io::{self, Error, ErrorKind};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use crate::limit::scaled;
use crate::net::{self, checked};
use crate::peer::drop_everything;

use super::binding::as_user;
use super::{Origin, Place, Repair, State, Step};

/// Turns TCP_REPAIR off without asking the peer for its window.
const TCP_REPAIR_OFF_NO_WP: i32 = -1;
/// bind() takes the address, and leaves the port to connect().
const IP_BIND_ADDRESS_NO_PORT: i32 = 24;

/// What has to stay open so that the sockets stay as they are.
#[derive(Debug, Default)]
pub struct Made {
    /// Those that have the port.
    pub own: Vec<OwnedFd>,
    pub peers: Vec<OwnedFd>,
}

impl Made {
    fn own(socket: OwnedFd) -> Self {
        Self {
            own: vec![socket],
            peers: Vec::new(),
        }
    }

    fn connected(own: OwnedFd, peer: OwnedFd) -> Self {
        Self {
            own: vec![own],
            peers: vec![peer],
        }
    }
}

impl Step {
    /// Makes it at that port of the place, in which the calling thread is. A step that is refused has an effect as well: what
    /// it did before.
    ///
    /// # Errors
    /// When the kernel refuses any of it.
    pub fn make(&self, place: &Place, port: u16) -> io::Result<Made> {
        let making = Making {
            step: self,
            place,
            port,
        };
        as_user(self.binding.user, || making.run())
    }
}

struct Making<'a> {
    step: &'a Step,
    place: &'a Place,
    port: u16,
}

impl Making<'_> {
    fn run(&self) -> io::Result<Made> {
        let protocol = if self.step.mptcp { libc::IPPROTO_MPTCP } else { 0 };
        let socket = self.step.binding.socket(protocol)?;
        let name = SocketAddr::new(self.step.binding.address, self.port);
        if self.step.repair.is_some() {
            as_user(0, || {
                net::set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1_i32)
            })?;
        }
        if self.step.origin == Origin::Chosen {
            let (victim, peer) = self.connect_unbound(socket, name)?;
            return self.bring(victim, peer);
        }
        net::bind(&socket, name)?;
        match (self.step.origin, self.step.state) {
            (_, State::Bound) => {
                self.set_later(&socket)?;
                self.end_repair(&socket)?;
                Ok(Made::own(socket))
            }
            (_, State::Listen) => {
                net::listen(&socket, 64)?;
                self.set_later(&socket)?;
                Ok(Made::own(socket))
            }
            (_, State::Gone) => net::listen(&socket, 8).map(|()| Made::default()),
            (_, State::SynSent) => {
                self.set_later(&socket)?;
                set_nonblocking(&socket)?;
                net::connect(
                    &socket,
                    SocketAddr::new(self.step.peer_address(), self.place.deaf()),
                )?;
                Ok(Made::own(socket))
            }
            (_, State::SynRecv) => self.open_fast(socket),
            (Origin::Accepted { listener_stays }, _) => {
                net::listen(&socket, 64)?;
                self.set_later(&socket)?;
                let (victim, peer) = self.accept(&socket)?;
                let mut made = self.bring(victim, peer)?;
                made.own.extend(listener_stays.then_some(socket));
                Ok(made)
            }
            _ => {
                self.set_later(&socket)?;
                let peer = self.connect(&socket)?;
                self.end_repair(&socket)?;
                self.bring(socket, peer)
            }
        }
    }

    fn set_later(&self, socket: &OwnedFd) -> io::Result<()> {
        let Some((reuseaddr, reuseport)) = self.step.later else {
            return Ok(());
        };
        for (option, on) in [(libc::SO_REUSEADDR, reuseaddr), (libc::SO_REUSEPORT, reuseport)] {
            net::set(socket, libc::SOL_SOCKET, option, i32::from(on))?;
        }
        Ok(())
    }

    fn end_repair(&self, socket: &OwnedFd) -> io::Result<()> {
        if self.step.repair != Some(Repair::Ends) {
            return Ok(());
        }
        as_user(0, || {
            net::set(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        })
    }

    /// Connects what is bound to the helper of the place. In TCP_REPAIR there is no other end.
    fn connect(&self, socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let helper = self.place.helper(self.step.mptcp);
        limit_time(socket)?;
        net::connect(socket, SocketAddr::new(self.step.peer_address(), helper))?;
        if self.step.repair.is_some() {
            return Ok(None);
        }
        let own = net::local_address(socket.as_fd())?.port();
        loop {
            let peer = soon(|| self.place.accept(self.step.mptcp))?;
            if remote_port(&peer)? == own {
                return Ok(Some(peer));
            }
        }
    }

    /// Lets connect() choose, where it has no choice but this port.
    fn connect_unbound(&self, socket: OwnedFd, name: SocketAddr) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        if !name.ip().is_unspecified() {
            net::set(&socket, libc::IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1_i32)?;
            net::bind(&socket, SocketAddr::new(name.ip(), 0))?;
        }
        // It is none of the ports that take a right (`ipv4_local_port_range`, net/ipv4/sysctl_net_ipv4.c).
        let range = |low: u16, high: u16| {
            as_user(0, || {
                fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{low} {high}"))
            })
        };
        range(self.port, self.port)?;
        let peer = self.connect(&socket);
        range(61_000, 65_535)?;
        let peer = peer?;
        self.set_later(&socket)?;
        Ok((socket, peer))
    }

    /// A client connects to the listener.
    fn accept(&self, listener: &OwnedFd) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let protocol = if self.step.mptcp { libc::IPPROTO_MPTCP } else { 0 };
        let address = SocketAddr::new(self.step.peer_address(), self.port);
        let client = net::socket(address, protocol, 0)?;
        limit_time(&client)?;
        net::connect(&client, address)?;
        set_nonblocking(listener)?;
        let own = net::local_address(client.as_fd())?.port();
        loop {
            let victim = soon(|| net::accept(listener))?;
            if remote_port(&victim)? == own {
                return Ok((victim, Some(client)));
            }
        }
    }

    /// A client sends data with its SYN and never sees the answer.
    fn open_fast(&self, listener: OwnedFd) -> io::Result<Made> {
        net::set(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 8_i32)?;
        net::listen(&listener, 8)?;
        self.set_later(&listener)?;
        let address = SocketAddr::new(self.step.peer_address(), self.port);
        let client = net::socket(address, 0, libc::SOCK_NONBLOCK)?;
        deafen(&client);
        let (storage, length) = net::raw(address);
        // SAFETY: The pointers and lengths describe a byte and `storage`, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                client.as_raw_fd(),
                b"x".as_ptr().cast(),
                1,
                libc::MSG_FASTOPEN,
                (&raw const storage).cast(),
                length,
            )
        };
        if sent < 0 && Error::last_os_error().raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(Error::last_os_error());
        }
        set_nonblocking(&listener)?;
        let victim = soon(|| net::accept(&listener))?;
        let mut made = Made::connected(victim, client);
        made.own.extend(self.step.held.then_some(listener));
        Ok(made)
    }

    /// Brings a connection into the state that is wanted.
    fn bring(&self, victim: OwnedFd, peer: Option<OwnedFd>) -> io::Result<Made> {
        let Some(peer) = peer else {
            return Ok(Made::own(victim));
        };
        let held = self.step.held;
        match self.step.state {
            State::CloseWait => {
                end(&peer)?;
                return Ok(Made::connected(victim, peer));
            }
            State::FinWait1 => {
                deafen(&peer);
                end(&victim)?;
            }
            State::FinWait2 => end(&victim)?,
            State::Closing => {
                deafen(&peer);
                end(&victim)?;
                end(&peer)?;
            }
            State::LastAck => {
                end(&peer)?;
                deafen(&peer);
                end(&victim)?;
            }
            State::TimeWait => {
                drop(victim);
                return Ok(Made::default());
            }
            State::Reset => {
                net::set_linger(&peer, 0)?;
                return Ok(Made::own(victim));
            }
            State::Disconnected => {
                disconnect(&victim)?;
                return Ok(Made::own(victim));
            }
            _ => return Ok(Made::connected(victim, peer)),
        }
        Ok(Made {
            own: held.then_some(victim).into_iter().collect(),
            peers: vec![peer],
        })
    }
}

/// From now on it hears nothing. Root does it, because the kernel compiles the filter, and there is a limit of compiled
/// programs for everybody else (`bpf_jit_charge_modmem`, kernel/bpf/core.c).
fn deafen(socket: &OwnedFd) {
    as_user(0, || drop_everything(socket));
}

/// Sends a FIN.
fn end(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: shutdown takes two integers and touches no memory of ours.
    checked(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

fn disconnect(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: All-zero is a valid sockaddr, whose family is AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).map_err(Error::other)?;
    // SAFETY: The pointer and the length describe `nowhere`, which outlives the call.
    checked(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) }).map(drop)
}

fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: F_SETFL takes integers and touches no memory of ours.
    checked(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// No connect() lasts longer.
fn limit_time(socket: &OwnedFd) -> io::Result<()> {
    let limit = scaled(Duration::from_millis(200));
    let limit = libc::timeval {
        tv_sec: i64::try_from(limit.as_secs()).map_err(Error::other)?,
        tv_usec: i64::from(limit.subsec_micros()),
    };
    net::set(socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, limit)
}

/// What loopback brings within a moment.
fn soon<T>(mut accept: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..50 {
        match accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            done => return done,
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn remote_port(socket: &OwnedFd) -> io::Result<u16> {
    // SAFETY: All-zero is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&storage)).map_err(Error::other)?;
    // SAFETY: The pointers are to `storage` and its length, which outlive the call.
    checked(unsafe { libc::getpeername(socket.as_raw_fd(), (&raw mut storage).cast(), &raw mut length) })?;
    // The port is at the same place for both families.
    Ok(u16::from_be(storage.sin6_port))
}
