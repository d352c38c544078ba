//! Who has a socket, held against what /proc shows.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::proc;

/// A process and a descriptor of it that leads to the socket with that inode.
type Holder = (u64, u32, u32, String);

/// Sockets of every kind that a report may be about.
fn sockets() -> Vec<Socket> {
    let (listener, _) = bound(V4, Reuse::default());
    listener.listen(8).unwrap();
    let (client, server) = connect(&listener);
    let (only_bound, _) = bound(V6, Reuse::default());
    let unbound = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    vec![listener, client, server, only_bound, unbound]
}

/// A process that has these of the sockets, and no others.
fn inheriting(sockets: &[Socket], mask: u8) -> Child {
    let wanted: Vec<_> = (0..)
        .zip(sockets)
        .filter(|(place, _)| mask >> place & 1 != 0)
        .collect();
    let fds: Vec<_> = wanted.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
    let mut command = Command::new("cat");
    // SAFETY: fcntl is a system call that needs no lock and no memory.
    unsafe {
        command.pre_exec(move || {
            let keep = |fd: &i32| libc::fcntl(*fd, libc::F_SETFD, 0);
            fds.iter().for_each(|fd| _ = keep(fd));
            Ok(())
        });
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    #[ignore = "needs root"]
    fn the_iterator_shows_the_holders_that_proc_shows(
        masks in proptest::collection::vec(0..32_u8, 1..5),
        asked in 0..32_u8,
    ) {
        let mut reader = PortReader::load_alone().unwrap();
        let sockets = sockets();
        let inodes: HashSet<u64> = (0..).zip(&sockets)
            .filter(|(place, _)| asked >> place & 1 != 0)
            .map(|(_, socket)| inode(socket))
            .collect();
        let mut children: Vec<_> = masks.iter().map(|mask| inheriting(&sockets, *mask)).collect();
        // Other tests may be forking: what their children have for a moment is not asked for.
        let pids: Vec<u32> = children.iter().map(Child::id).collect();
        let ours = |holder: &Holder| pids.contains(&holder.1);
        let files = reader.descriptors(&[], &inodes).unwrap();
        let told: BTreeSet<Holder> = files.into_iter()
            .map(|file| (file.owner.inode, file.pid, file.fd, file.comm))
            .filter(ours)
            .collect();
        let shown: BTreeSet<Holder> = proc::holders(&inodes).unwrap().held.into_iter()
            .map(|held| (held.inode, held.pid, held.fd, held.comm))
            .filter(ours)
            .collect();
        for child in &mut children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        let held = masks.iter().map(|mask| (mask & asked).count_ones() as usize).sum::<usize>();
        prop_assert_eq!(told.len(), held);
        prop_assert_eq!(told, shown);
    }
}

/// The program is asked for the lowest 16 bits of an inode.
#[test]
#[ignore = "needs root"]
fn an_inode_that_is_alike_is_not_asked_for() {
    let mut reader = PortReader::load_alone().unwrap();
    let (socket, _) = bound(V4, Reuse::default());
    let asked = inode(&socket);
    let mut told = |inode: u64| {
        let files = reader.descriptors(&[], &HashSet::from([inode])).unwrap();
        files.into_iter().any(|file| file.owner.inode == asked)
    };
    assert!(told(asked));
    assert!(!told(asked ^ 1 << 16));
    assert!(!told(asked ^ 1));
}
