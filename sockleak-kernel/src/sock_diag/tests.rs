//! Against the running kernel, on loopback, without privileges.

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use sockleak_core::observed::{State, Timer};

use super::*;
use crate::netns::{self, Netns};
use crate::sandbox;

/// A listener, a connection's client end and its accepted end.
fn connection(address: &str) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (listener, client, accepted)
}

fn find(rows: &[Sighting], local: SocketAddr, state: State) -> Option<&Sighting> {
    rows.iter().find(|row| row.local == local && row.state == state)
}

/// Dumps until the socket is in that state; the kernel needs a moment for some.
fn wait_for(local: SocketAddr, remote: SocketAddr, state: State) -> Sighting {
    let began = Instant::now();
    let filter = Filter::all().local_ports([local.port()]);
    loop {
        let rows = SockDiag::open(None)
            .unwrap()
            .dump(Protocol::Tcp, Family::Ipv4, &filter)
            .unwrap();
        let found = rows.iter().find(|row| row.local == local && row.remote == remote);
        if let Some(row) = found.filter(|row| row.state == state) {
            return row.clone();
        }
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{found:?} is not {state:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn lists_a_listener_and_both_ends() {
    let (listener, client, accepted) = connection("127.0.0.1:0");
    let ports = [
        listener.local_addr().unwrap().port(),
        client.local_addr().unwrap().port(),
    ];
    let own = Netns::current().unwrap();
    let mut diag = SockDiag::open(Some(own.as_fd())).unwrap();
    let filter = Filter::all().local_ports(ports);
    let rows = diag.dump(Protocol::Tcp, Family::Ipv4, &filter).unwrap();
    assert!(find(&rows, listener.local_addr().unwrap(), State::Listen).is_some());
    for end in [&client, &accepted] {
        let row = find(&rows, end.local_addr().unwrap(), State::Established).unwrap();
        assert_eq!(row.remote, end.peer_addr().unwrap());
        assert_eq!(row.timer, Timer::None);
        assert!(row.rto.is_some() && row.cookie != 0 && row.inode != 0);
    }
    assert!(rows.iter().all(|row| ports.contains(&row.local.port())));
    // The cookie stays, and only the states asked for come.
    let listening = filter.states(&[State::Listen]);
    let again = diag.dump(Protocol::Tcp, Family::Ipv4, &listening).unwrap();
    assert!(again.iter().all(|row| row.state == State::Listen));
    let same = |row: &&Sighting| row.local == listener.local_addr().unwrap();
    assert_eq!(again.iter().find(same), rows.iter().find(same));
}

#[test]
fn the_kernel_takes_the_longest_filter() {
    let (_listener, client, _accepted) = connection("127.0.0.1:0");
    let own = client.local_addr().unwrap();
    let ports = (1..=65_535_u16).step_by(97).chain([own.port()]);
    let filter = Filter::all().local_ports(ports);
    assert_eq!(filter.ranges().len(), 32);
    let rows = SockDiag::open(None)
        .unwrap()
        .dump(Protocol::Tcp, Family::Ipv4, &filter)
        .unwrap();
    assert!(find(&rows, own, State::Established).is_some());
}

#[test]
fn time_wait_is_a_mini_socket_with_its_timer() {
    let (_listener, client, accepted) = connection("127.0.0.1:0");
    let (local, remote) = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
    drop(accepted);
    // The peer is still open. With the default tcp_fin_timeout this is a mini socket already.
    wait_for(local, remote, State::FinWait2);
    drop(client);
    let row = wait_for(local, remote, State::TimeWait);
    assert_eq!((row.timer, row.inode, row.rto), (Timer::TimeWait, 0, None));
    assert!(row.expires > Duration::from_secs(50) && row.expires <= Duration::from_secs(60));
}

#[test]
fn the_fin_is_a_byte_that_is_not_acknowledged() {
    let (_listener, client, accepted) = connection("127.0.0.1:0");
    let (local, remote) = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
    sandbox::drop_everything(&client).unwrap();
    (&accepted).write_all(&[0; 100]).unwrap();
    drop(accepted);
    let row = wait_for(local, remote, State::FinWait1);
    assert_eq!((row.send_queue, row.inode), (101, 0));
    assert!(row.last_ack.is_some_and(|ago| ago < Duration::from_secs(60)));
    let filter = Filter::all().local_ports([local.port()]).without_tcp_info();
    let mut diag = SockDiag::open(None).unwrap();
    let rows = diag.dump(Protocol::Tcp, Family::Ipv4, &filter).unwrap();
    let plain = find(&rows, local, State::FinWait1).unwrap();
    assert_eq!((plain.send_queue, plain.rto, plain.last_ack), (101, None, None));
    sandbox::reset(client).unwrap();
}

#[test]
#[ignore = "needs a kernel with IPv6"]
fn ipv6_sockets_keep_mapped_addresses() {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let rows = SockDiag::open(None)
        .unwrap()
        .dump(Protocol::Tcp, Family::Ipv6, &Filter::all().local_ports([port]))
        .unwrap();
    let row = find(&rows, accepted.local_addr().unwrap(), State::Established).unwrap();
    assert_eq!(row.local.ip().to_string(), "::ffff:127.0.0.1");
}

#[test]
fn the_other_end_is_asked_for_by_its_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let rows = SockDiag::open(None)
        .unwrap()
        .dump(
            Protocol::Tcp,
            Family::Ipv4,
            &Filter::all().remote_ports([address.port()]),
        )
        .unwrap();
    assert!(
        rows.iter().all(|row| row.remote.port() == address.port()),
        "{rows:?}"
    );
    find(&rows, client.local_addr().unwrap(), State::Established).unwrap();
}

fn open_socket(protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: The call takes no pointers.
    let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, protocol) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor was just opened, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[test]
#[ignore = "needs a kernel that lists sockets that are bound only (6.8 and later)"]
fn a_bound_socket_is_told_from_a_closed_one() {
    let socket = open_socket(libc::IPPROTO_TCP).unwrap();
    // SAFETY: All bytes zero is a valid sockaddr_in.
    let mut any: libc::sockaddr_in = unsafe { mem::zeroed() };
    any.sin_family = libc::AF_INET as libc::sa_family_t;
    // SAFETY: The pointer is to a live sockaddr_in of the length that is given.
    let status = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const any).cast(),
            size_of_val(&any) as libc::socklen_t,
        )
    };
    assert_eq!(status, 0);
    let socket = TcpListener::from(socket);
    let port = socket.local_addr().unwrap().port();
    let filter = Filter::all().states(&[State::BoundInactive]).local_ports([port]);
    let mut diag = SockDiag::open(None).unwrap();
    let rows = diag.dump(Protocol::Tcp, Family::Ipv4, &filter).unwrap();
    assert_eq!((rows.len(), rows[0].state), (1, State::BoundInactive));
}

#[test]
#[ignore = "needs a kernel with MPTCP"]
fn mptcp_listeners_are_rows_of_their_own() {
    let socket = open_socket(libc::IPPROTO_MPTCP).unwrap();
    // SAFETY: The call takes no pointers. Without bind(), listen() takes an ephemeral port.
    assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), 1) }, 0);
    let local = TcpListener::from(socket);
    let port = local.local_addr().unwrap().port();
    let mut diag = SockDiag::open(None).unwrap();
    let filter = Filter::all().local_ports([port]);
    let rows = diag.dump(Protocol::Mptcp, Family::Ipv4, &filter).unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (rows[0].protocol, rows[0].state, rows[0].rto),
        (Protocol::Mptcp, State::Listen, None)
    );
    // Its subflow is a TCP socket with another cookie.
    let subflows = diag.dump(Protocol::Tcp, Family::Ipv4, &filter).unwrap();
    assert!(!subflows.is_empty() && subflows.iter().all(|row| row.cookie != rows[0].cookie));
    // Most kernels tell only CAP_NET_ADMIN what it belongs to.
    if may_destroy() {
        assert!(subflows.iter().all(|row| row.is_subflow), "{subflows:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn another_namespace_has_its_own_sockets() {
    let made = netns::in_new_namespace(|| Ok((Netns::current()?, TcpListener::bind("0.0.0.0:0")?)));
    let (other, listener) = made;
    let mut there = SockDiag::open(Some(other.as_fd())).unwrap();
    let rows = there.dump(Protocol::Tcp, Family::Ipv4, &Filter::all()).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].local, listener.local_addr().unwrap());
    // No process is in it, but this one has a descriptor of it, until it has none.
    let inode = other.inode();
    let find = || Netns::find(inode).unwrap().map(|found| found.inode());
    assert_eq!(find(), Some(inode));
    drop(other);
    assert_eq!(find(), None);
}
