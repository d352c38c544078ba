//! What was read, held against what bind() says.

use super::*;

#[test]
#[ignore = "needs root"]
fn the_bucket_has_the_shortcuts_that_bind_takes() {
    let mut reader = PortReader::load_alone().unwrap();
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
        sandbox::drop_everything(&peer).unwrap();
        (port, peer, (!self.orphan).then_some(server))
    }

    /// Reads the port until nothing else is on it. A program that another test starts meanwhile has a copy of every
    /// descriptor until its exec, and so keeps the listener for a moment.
    fn alone(self, reader: &mut PortReader, netns: &Netns, port: u16) -> Vec<PortOwner> {
        let left = if self.orphan {
            State::FinWait1
        } else {
            State::Established
        };
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let owners = reader.owners(netns.as_fd(), &[port]).unwrap();
            if owners.len() == 1 && owners[0].state == left {
                return owners;
            }
            assert!(Instant::now() < limit, "{owners:#?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The uid and the bucket matter only together with the rule, so `bind()` is asked as either user.
#[test]
#[ignore = "needs root"]
fn bind_answers_as_the_rule_does_for_what_was_read() {
    let mut reader = PortReader::load_alone().unwrap();
    let requests = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
        .into_iter()
        .flat_map(|address| Reuse::ALL.map(|reuse| (address, reuse)))
        .flat_map(|(address, reuse)| [0, USER].map(|uid| (address, reuse, uid)));
    isolated(|netns| {
        for leftover in Leftover::all() {
            for (address, reuse, uid) in requests.clone() {
                let (port, _peer, server) = leftover.make();
                let owners = leftover.alone(&mut reader, netns, port);
                if let Some(server) = &server {
                    assert_eq!(owners[0].inode, inode(server));
                    assert_eq!(owners[0].uid, Some(USER));
                } else {
                    assert_eq!(owners[0].inode, 0);
                }
                let request = Request {
                    address: address.into(),
                    v6only: false,
                    reuse,
                    device: 0,
                    vrf: 0,
                    uid: Some(uid),
                };
                let answer = in_the_way(&request, &owners).listen;
                let succeeds = as_user(uid, || may_bind(address, port, reuse));
                let told = format!("{leftover:?} {request:?} {owners:#?}");
                assert_eq!(answer == Answer::Ok, succeeds, "{told}");
            }
        }
    });
}
