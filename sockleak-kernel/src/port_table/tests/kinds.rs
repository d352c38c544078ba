//! Every kind of socket, with the options that the kernel itself tells of it.

use super::*;

#[test]
#[ignore = "needs root"]
fn every_state_of_a_connection_has_the_options_of_its_listener() {
    let mut reader = PortReader::load_alone().unwrap();
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
    let mut reader = PortReader::load_alone().unwrap();
    for at in [V4, V6, MAPPED] {
        for reuse in Reuse::ALL {
            isolated(|netns| {
                let (socket, port) = bound(at, reuse);
                assert_eq!(reader.owners(netns.as_fd(), &[port]).unwrap(), []);
                let again = socket.try_clone().unwrap();
                let mut files = reader.files(&[port]).unwrap();
                // Another test may just be starting a program, whose child has these descriptors until its exec.
                files.retain(|file| file.owner.netns == netns.inode() && file.pid == process::id());
                files.sort_by_key(|file| file.fd);
                let mut fds = [socket.as_raw_fd(), again.as_raw_fd()].map(i32::cast_unsigned);
                fds.sort_unstable();
                assert_eq!(files.iter().map(|file| file.fd).collect::<Vec<_>>(), fds);
                for file in &files {
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
fn another_namespace_has_its_own_owners() {
    let mut reader = PortReader::load_alone().unwrap();
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
    let mut reader = PortReader::load_alone().unwrap();
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

#[test]
#[ignore = "needs root"]
fn a_request_has_no_port_of_its_own() {
    let mut reader = PortReader::load_alone().unwrap();
    isolated(|netns| {
        let (listener, port) = bound(V4, Reuse::default());
        listener.listen(1).unwrap();
        let client = TcpStream::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        client.set_nonblocking(true).unwrap();
        // It never sees the answer to its SYN.
        sandbox::drop_everything(&client).unwrap();
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
fn an_mptcp_socket_is_told_by_its_subflow() {
    let mut reader = PortReader::load_alone().unwrap();
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
        assert_eq!(file.owner.inode, inode(&socket));
        let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
        let [owner] = &owners[..] else {
            panic!("{owners:#?}")
        };
        assert_eq!((owner.protocol, owner.state), (Protocol::Tcp, State::Listen));
        assert_eq!(
            (owner.reuse, owner.local),
            (Some(Reuse::new(true, false)), local(&socket))
        );
        assert!(owner.bucket.is_some());
        assert_eq!((file.owner.sk, file.owner.bucket), (owner.sk, owner.bucket));
    });
}

/// More than the kernel keeps at a time, so that it shows some sockets to the program twice.
#[test]
#[ignore = "needs root"]
fn many_sockets_are_all_there_once() {
    // Each has two descriptors, and the other tests of this process have some too.
    let connections = 1_500.min(allow_all_descriptors() / 2 - 100);
    let mut reader = PortReader::load_alone().unwrap();
    isolated(|netns| {
        let (listener, port) = bound(V4, Reuse::default());
        listener.listen(64).unwrap();
        let mut kept = Vec::new();
        for _ in 0..connections {
            kept.push(connect(&listener));
        }
        let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
        assert_eq!(owners.len(), connections + 1);
        let mut remotes: Vec<_> = owners.iter().filter_map(|owner| owner.remote).collect();
        let mut clients: Vec<_> = kept.iter().map(|(client, _)| local(client)).collect();
        remotes.sort_unstable();
        clients.sort_unstable();
        assert_eq!(remotes, clients);
        let files = reader.files(&[port]).unwrap();
        let mine = files.iter().filter(|file| file.owner.netns == netns.inode());
        assert_eq!(mine.count(), connections + 1);
        let none = reader.owners(netns.as_fd(), &[port ^ 1 | 0x8000]).unwrap();
        assert!(none.len() <= 1, "{none:#?}");
    });
}
