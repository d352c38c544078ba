use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::kernel::netns::Netns;
use crate::kernel::stage;
use crate::postmortem::{Answer, Family, Protocol, Request, Reuse, State, in_the_way};

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
                stage::isolate().unwrap();
                test(&Netns::current().unwrap());
            })
            .join()
            .unwrap();
    });
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

#[test]
#[ignore = "needs root"]
fn every_state_of_a_connection_has_the_options_of_its_listener() {
    let mut reader = load::load_port_reader().unwrap();
    for at in [V4, V6, MAPPED] {
        for reuse in Reuse::ALL {
            isolated(|netns| connection(&mut reader, netns, at, reuse));
        }
    }
}

fn connection(reader: &mut PortReader, netns: &Netns, at: (Domain, SocketAddr), reuse: Reuse) {
    let (listener, port) = bound(at, reuse);
    listener.listen(8).unwrap();
    let listening = reader.owners(netns.as_fd(), &[port]).unwrap();
    let [owner] = &listening[..] else {
        panic!("{listening:#?}")
    };
    assert_as_the_kernel_says(owner, &listener, netns);
    assert_eq!((owner.state, owner.remote), (State::Listen, None));
    let bucket = owner.bucket.unwrap();
    assert!(!bucket.reuse_addr, "listen() ends this shortcut");

    let (client, server) = connect(&listener);
    let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
    assert_eq!(owners.len(), 2, "the client has another port: {owners:#?}");
    let owner = owners
        .iter()
        .find(|owner| owner.state == State::Established)
        .unwrap();
    assert_as_the_kernel_says(owner, &server, netns);
    assert_eq!(owner.remote, Some(local(&client)));
    assert_eq!(owner.bucket, Some(bucket));

    let of_server = owner.clone();
    drop(server);
    let half = mini(reader, netns, port, State::FinWait2);
    drop(client);
    let whole = mini(reader, netns, port, State::TimeWait);
    for owner in [&half, &whole] {
        assert_eq!((owner.reuse, owner.uid, owner.inode), (Some(reuse), None, 0));
        assert_eq!((owner.local, owner.remote), (of_server.local, of_server.remote));
        assert_eq!((owner.v6only, owner.device), (of_server.v6only, 0));
        assert_eq!((owner.netns, owner.bucket), (netns.inode(), Some(bucket)));
        assert_eq!((owner.family, owner.protocol), (of_server.family, Protocol::Tcp));
    }
    assert_eq!(half.sk, whole.sk);
}

#[test]
#[ignore = "needs root"]
fn a_socket_that_is_only_bound_is_found_by_its_file() {
    let mut reader = load::load_port_reader().unwrap();
    for at in [V4, V6, MAPPED] {
        for reuse in Reuse::ALL {
            isolated(|netns| {
                let (socket, port) = bound(at, reuse);
                assert_eq!(reader.owners(netns.as_fd(), &[port]).unwrap(), []);
                let again = socket.try_clone().unwrap();
                let mut files = reader.files(&[port]).unwrap();
                files.retain(|file| file.owner.netns == netns.inode());
                files.sort_by_key(|file| file.fd);
                let mut fds = [socket.as_raw_fd(), again.as_raw_fd()].map(i32::cast_unsigned);
                fds.sort_unstable();
                assert_eq!(files.iter().map(|file| file.fd).collect::<Vec<_>>(), fds);
                for file in &files {
                    assert_eq!(file.pid, process::id());
                    assert_eq!((file.owner.state, file.owner.remote), (State::Close, None));
                    assert_as_the_kernel_says(&file.owner, &socket, netns);
                    assert!(file.owner.bucket.is_some());
                }
            });
        }
    }
}

/// The shortcuts outlive the options that they were made of, so `bind()` itself tells which ones there are.
#[test]
#[ignore = "needs root"]
fn the_bucket_has_the_shortcuts_that_bind_takes() {
    let mut reader = load::load_port_reader().unwrap();
    // The kernel chooses a port by another way than it takes one that it is asked for.
    for (reuse, port) in Reuse::ALL
        .into_iter()
        .flat_map(|reuse| [(reuse, 0), (reuse, 4242)])
    {
        isolated(|netns| {
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (socket, port) = bound((Domain::IPV4, at), reuse);
            socket.set_reuse_address(false).unwrap();
            socket.set_reuse_port(false).unwrap();
            let mut bucket = || {
                let mut files = reader.files(&[port]).unwrap();
                files.retain(|file| file.owner.netns == netns.inode());
                assert_eq!(files[0].owner.reuse, Some(Reuse::default()));
                files[0].owner.bucket.unwrap()
            };
            let binds = |address, reuse| may_bind(address, port, reuse);
            assert_eq!(
                binds(Ipv4Addr::UNSPECIFIED, Reuse::new(false, true)),
                bucket().reuse_port
            );
            let shared =
                bucket().reuse_port || bucket().reuse_port_at.is_some_and(|it| it.address == at.ip());
            assert_eq!(binds(Ipv4Addr::LOCALHOST, Reuse::new(false, true)), shared);
            assert_eq!(
                binds(Ipv4Addr::LOCALHOST, Reuse::new(true, false)),
                bucket().reuse_addr
            );
        });
    }
}

#[test]
#[ignore = "needs root"]
fn another_namespace_has_its_own_owners() {
    let mut reader = load::load_port_reader().unwrap();
    let made = netns::in_new_namespace(|| Ok((Netns::current()?, TcpListener::bind("0.0.0.0:0")?)));
    let (other, listener) = made;
    let port = listener.local_addr().unwrap().port();
    let owners = reader.owners(other.as_fd(), &[port]).unwrap();
    let told: Vec<_> = owners.iter().map(|owner| (owner.netns, owner.state)).collect();
    assert_eq!(told, [(other.inode(), State::Listen)]);
    let own = Netns::current().unwrap();
    let owners = reader.owners(own.as_fd(), &[port]).unwrap();
    assert!(owners.iter().all(|owner| owner.netns == own.inode()));
    let files = reader.files(&[port]).unwrap();
    assert!(files.iter().any(|file| file.owner.netns == other.inode()));
}

#[test]
#[ignore = "needs root"]
fn devices_and_v6only_are_those_of_the_socket() {
    let mut reader = load::load_port_reader().unwrap();
    isolated(|netns| {
        let any = (Domain::IPV6, v6(Ipv6Addr::UNSPECIFIED));
        let socket = Socket::new(any.0, Type::STREAM, None).unwrap();
        socket.set_only_v6(true).unwrap();
        socket.bind_device(Some(b"lo")).unwrap();
        socket.bind(&any.1.into()).unwrap();
        socket.listen(1).unwrap();
        let (dual, other) = bound(any, Reuse::default());
        dual.listen(1).unwrap();
        let ports = [local(&socket).port(), other];
        let mut owners = reader.owners(netns.as_fd(), &ports).unwrap();
        owners.sort_by_key(|owner| owner.local.port() == other);
        let told: Vec<_> = owners.iter().map(|owner| (owner.v6only, owner.device)).collect();
        assert_eq!(told, [(Some(true), 1), (Some(false), 0)]);
        let files = reader.files(&ports).unwrap();
        let mine = files.iter().filter(|file| file.owner.netns == netns.inode());
        assert_eq!(mine.count(), 2);
    });
}

/// Does something as another effective user. The raw call changes this thread alone.
fn as_user<T>(uid: u32, work: impl FnOnce() -> T) -> T {
    let become_user = |uid: u32| {
        // SAFETY: The call takes three integers, of which -1 means no change.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) }, 0);
    };
    become_user(uid);
    let result = work();
    become_user(0);
    result
}

/// What is left of a server of another user, in one of the ways that the rule tells apart.
#[derive(Clone, Copy, Debug)]
struct Leftover {
    /// Where the listener was.
    listener: Ipv4Addr,
    reuse: Reuse,
    /// No process has the connection any more: before 6.17 it is root's for `bind()` then.
    orphan: bool,
}

const USER: u32 = 1000;

impl Leftover {
    fn all() -> impl Iterator<Item = Self> {
        let listeners = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].into_iter();
        listeners
            .flat_map(|listener| Reuse::ALL.map(|reuse| (listener, reuse)))
            .flat_map(|(listener, reuse)| {
                [false, true].map(|orphan| Self {
                    listener,
                    reuse,
                    orphan,
                })
            })
    }

    /// Leaves it on a port. What is given back keeps it there.
    fn make(self) -> (u16, TcpStream, Option<Socket>) {
        let ((client, server), port) = as_user(USER, || {
            let (listener, port) = bound((Domain::IPV4, (self.listener, 0).into()), self.reuse);
            listener.listen(1).unwrap();
            (connect(&listener), port)
        });
        // Its FIN is never acknowledged.
        let peer = TcpStream::from(client);
        stage::drop_everything(&peer).unwrap();
        (port, peer, (!self.orphan).then_some(server))
    }
}

/// The uid and the bucket matter only together with the rule, so `bind()` is asked as either user.
#[test]
#[ignore = "needs root"]
fn bind_answers_as_the_rule_does_for_what_was_read() {
    let mut reader = load::load_port_reader().unwrap();
    let requests = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
        .into_iter()
        .flat_map(|address| Reuse::ALL.map(|reuse| (address, reuse)))
        .flat_map(|(address, reuse)| [0, USER].map(|uid| (address, reuse, uid)));
    isolated(|netns| {
        for leftover in Leftover::all() {
            for (address, reuse, uid) in requests.clone() {
                let (port, _peer, server) = leftover.make();
                let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
                let [owner] = &owners[..] else {
                    panic!("{owners:#?}")
                };
                if let Some(server) = &server {
                    assert_eq!((owner.state, owner.inode), (State::Established, inode(server)));
                    assert_eq!(owner.uid, Some(USER));
                } else {
                    assert_eq!((owner.state, owner.inode), (State::FinWait1, 0));
                }
                let request = Request {
                    address: address.into(),
                    v6only: false,
                    reuse,
                    uid: Some(uid),
                };
                let (answer, _) = in_the_way(&request, &owners);
                let succeeds = as_user(uid, || may_bind(address, port, reuse));
                let told = format!("{leftover:?} {request:?} {owners:#?}");
                assert_eq!(answer == Answer::Ok, succeeds, "{told}");
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_request_has_no_port_of_its_own() {
    let mut reader = load::load_port_reader().unwrap();
    isolated(|netns| {
        let (listener, port) = bound(V4, Reuse::default());
        listener.listen(1).unwrap();
        let client = TcpStream::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        client.set_nonblocking(true).unwrap();
        // It never sees the answer to its SYN.
        stage::drop_everything(&client).unwrap();
        let client = Socket::from(client);
        client.connect(&local(&listener).into()).unwrap_err();
        // In hexadecimal: its state is SYN_RECV.
        let request = format!("0100007F:{port:04X} 0100007F:{:04X} 03", local(&client).port());
        let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        assert!(table.contains(&request), "{table}");
        let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
        let states: Vec<_> = owners.iter().map(|owner| owner.state).collect();
        assert_eq!(states, [State::Listen]);
    });
}

/// The MPTCP socket has the file, and its subflow the place in the table.
#[test]
#[ignore = "needs root and a kernel with MPTCP"]
fn an_mptcp_socket_is_told_from_its_subflow() {
    let mut reader = load::load_port_reader().unwrap();
    isolated(|netns| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(socket2::Protocol::MPTCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&V4.1.into()).unwrap();
        socket.listen(1).unwrap();
        let port = local(&socket).port();
        let mut files = reader.files(&[port]).unwrap();
        files.retain(|file| file.owner.netns == netns.inode());
        let [file] = &files[..] else { panic!("{files:#?}") };
        assert_eq!(
            (file.owner.protocol, file.owner.state),
            (Protocol::Mptcp, State::Listen)
        );
        assert_eq!((file.owner.inode, file.owner.bucket), (inode(&socket), None));
        let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
        let [owner] = &owners[..] else {
            panic!("{owners:#?}")
        };
        assert_eq!((owner.protocol, owner.state), (Protocol::Tcp, State::Listen));
        assert_eq!(
            (owner.reuse, owner.local),
            (Some(Reuse::new(true, false)), local(&socket))
        );
        assert!(owner.bucket.is_some() && owner.sk != file.owner.sk);
    });
}

/// More than the kernel keeps at a time, so that it shows some sockets to the program twice.
#[test]
#[ignore = "needs root"]
fn many_sockets_are_all_there_once() {
    const CONNECTIONS: usize = 1_500;
    let mut reader = load::load_port_reader().unwrap();
    isolated(|netns| {
        let (listener, port) = bound(V4, Reuse::default());
        listener.listen(64).unwrap();
        let mut kept = Vec::new();
        for _ in 0..CONNECTIONS {
            kept.push(connect(&listener));
        }
        let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
        assert_eq!(owners.len(), CONNECTIONS + 1);
        let mut remotes: Vec<_> = owners.iter().filter_map(|owner| owner.remote).collect();
        let mut clients: Vec<_> = kept.iter().map(|(client, _)| local(client)).collect();
        remotes.sort_unstable();
        clients.sort_unstable();
        assert_eq!(remotes, clients);
        let files = reader.files(&[port]).unwrap();
        let mine = files.iter().filter(|file| file.owner.netns == netns.inode());
        assert_eq!(mine.count(), CONNECTIONS + 1);
        let none = reader.owners(netns.as_fd(), &[port ^ 1 | 0x8000]).unwrap();
        assert!(none.len() <= 1, "{none:#?}");
    });
}

/// A reader that ends each read within a record.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.0.len().min(7);
        into[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

#[test]
fn a_record_may_be_cut_by_a_read_but_not_by_the_end() {
    let bytes = [0; 3 * PortOwner::SIZE];
    let owners: Vec<PortOwner> = read(Pieces(&bytes), "x").unwrap();
    assert_eq!(owners.len(), 3);
    assert_eq!(latest(owners, |owner| owner.sk).len(), 1);
    let error = read::<PortOwner>(Pieces(&bytes[1..]), "x").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the BPF iterator x cannot be understood")
    );
}

#[test]
fn the_last_sight_of_a_thing_holds() {
    let seen = vec![(1, 'a'), (2, 'b'), (1, 'c')];
    assert_eq!(latest(seen, |one| one.0), [(1, 'c'), (2, 'b')]);
}

#[test]
fn a_refusal_says_why_and_what_to_do() {
    let denied = io::Error::from_raw_os_error(libc::EPERM);
    let told = refused("tcp_port_owners", "be attached", &denied);
    assert_eq!(told.kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        told.to_string(),
        "the BPF iterator tcp_port_owners cannot be attached: Operation not permitted (os error 1); it needs CAP_BPF \
         and CAP_PERFMON (sudo)"
    );
}
