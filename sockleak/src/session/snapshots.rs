//! Snapshots of what is left of deaths: sock_diag's answer, who has the ports, and who else has the sockets. Decides
//! nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::iter;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sockleak_core::observed::{Family, PortFile, Protocol, Sighting, Snapshot, Socket};
use sockleak_core::port::{Addressing, Destinations, Endpoint, LocalAddress, PortOwner};
use sockleak_kernel::inventory::Surveyed;
use sockleak_kernel::local_ports;
use sockleak_kernel::netns::Netns;
use sockleak_kernel::port_table::PortReader;
use sockleak_kernel::proc::{self, Held, Holders};
use sockleak_kernel::sock_diag::{self, Filter, SockDiag, SockDiagError};

use super::namespaces::Namespaces;
use super::{addressing, same_destination};

/// What is to be looked at after deaths, put together socket by socket.
#[derive(Default)]
pub struct Questions {
    namespaces: HashMap<u32, Place>,
}

/// What one look showed.
pub struct Seen {
    /// One of each namespace.
    pub snapshots: Vec<Snapshot>,
    /// Who else has sockets of the dead.
    pub holders: Holders,
    /// How long it took to find them, and what is only bound.
    pub searched: Duration,
}

/// A network namespace that is to be looked at.
#[derive(Default)]
struct Place {
    /// A process that had a socket there.
    pid: u32,
    wanted: Wanted,
    destinations: Destinations,
}

impl Questions {
    /// Asks for the local ports of this socket, in its namespace.
    pub fn add(&mut self, socket: &Socket) {
        let place = self.namespaces.entry(socket.netns).or_insert_with(|| Place {
            pid: socket.id.tgid,
            ..Place::default()
        });
        let wanted = &mut place.wanted;
        wanted.ports.insert(socket.local.port());
        wanted.kinds.insert((socket.protocol, socket.family));
        if socket.protocol == Protocol::Mptcp {
            wanted.kinds.insert((Protocol::Tcp, socket.family));
        }
        // Whoever has the port is in the way of a restart, in either family.
        if let Some(endpoint) = Endpoint::of(socket) {
            wanted.bound.insert(socket.local.port());
            wanted.addresses.extend(addressing::question(&endpoint));
            wanted
                .kinds
                .extend([Family::Ipv4, Family::Ipv6].map(|family| (Protocol::Tcp, family)));
        }
        place.destinations.add(socket);
    }

    /// Asks for what another one asks for too.
    pub fn extend(&mut self, other: Self) {
        for (inode, place) in other.namespaces {
            match self.namespaces.entry(inode) {
                Entry::Vacant(entry) => {
                    entry.insert(place);
                }
                Entry::Occupied(entry) => entry.into_mut().extend(place),
            }
        }
    }

    /// Looks once at every namespace, and then, if need be, once at every descriptor. In this order a socket that a
    /// namespace shows as open and that nobody has is one that was closed in between, or that is in flight: the next look
    /// tells. One that is only bound, and one that has begun to listen since, is in the descriptors.
    ///
    /// # Errors
    /// When sock_diag is missing or broken; a namespace that is gone is no error.
    pub fn look(
        self,
        surveyed: &Surveyed,
        namespaces: &mut Namespaces,
        mut reader: Option<&mut PortReader>,
    ) -> Result<Seen, SockDiagError> {
        let mut snapshots = Vec::with_capacity(self.namespaces.len());
        let mut bound = Vec::with_capacity(self.namespaces.len());
        for (inode, place) in self.namespaces {
            let Place {
                pid,
                wanted,
                destinations,
            } = place;
            let namespace = namespaces.get(pid, inode);
            let local_ports = namespace.and_then(|namespace| local_ports::read(namespace).ok());
            let mut snapshot = look(inode, namespace, &wanted)?;
            if let (Some(reader), Some(namespace)) = (&mut reader, namespace) {
                snapshot.owners = listed(reader, namespace, &wanted.bound);
            }
            if let Some(namespace) = namespace.filter(|_| !wanted.addresses.is_empty()) {
                snapshot.addressing = addressing::read(namespace, &wanted.addresses, iter::empty());
            }
            if let (Some(namespace), Some(rules)) = (namespace, &local_ports) {
                snapshot.same_destination =
                    same_destination::sockets(namespace, &destinations.ports(rules))?.map(Arc::new);
            }
            snapshot.local_ports = local_ports;
            snapshot.overflow = namespaces.overflow(inode);
            if snapshot.sightings.is_none() && snapshot.refused.is_none() {
                snapshot.refused = namespaces.refused(inode).cloned();
            }
            snapshots.push(snapshot);
            bound.push(wanted.bound);
        }
        let inodes = surveyed.held_elsewhere(&snapshots);
        let search = Instant::now();
        let files = reader.and_then(|reader| files(reader, &bound, &inodes));
        for (snapshot, ports) in snapshots.iter_mut().zip(&bound) {
            add_only_bound(snapshot, ports, files.as_deref());
            snapshot.shows_bound =
                snapshot.owners.is_some() || (!ports.is_empty() && sock_diag::lists_bound());
        }
        Ok(Seen {
            snapshots,
            holders: holders(files, &inodes),
            searched: search.elapsed(),
        })
    }
}

impl Place {
    fn extend(&mut self, other: Self) {
        self.wanted.ports.extend(other.wanted.ports);
        self.wanted.bound.extend(other.wanted.bound);
        self.wanted.addresses.extend(other.wanted.addresses);
        self.wanted.kinds.extend(other.wanted.kinds);
        self.destinations.extend(other.destinations);
    }
}

/// Who has the ports that processes listened on or were bound to, as the tables of the namespace tell. `None` where it
/// cannot be read; why is a warning, and the report then knows the dead process's sockets only.
fn listed(reader: &mut PortReader, namespace: &Netns, ports: &BTreeSet<u16>) -> Option<Vec<Arc<PortOwner>>> {
    let ports: Vec<u16> = ports.iter().copied().collect();
    if ports.is_empty() {
        return None;
    }
    let owners = told(reader.owners(namespace.as_fd(), &ports))?;
    // collect() would keep the memory of the list that it consumes.
    let mut shared = Vec::with_capacity(owners.len());
    shared.extend(owners.into_iter().map(Arc::new));
    Some(shared)
}

/// The descriptors that lead to sockets with these ports or inodes, in one pass over all that there are. Nothing is read
/// if nothing is asked for; `None` where they cannot be read.
fn files(reader: &mut PortReader, ports: &[BTreeSet<u16>], inodes: &HashSet<u64>) -> Option<Vec<PortFile>> {
    let ports: BTreeSet<u16> = ports.iter().flatten().copied().collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    if ports.is_empty() && inodes.is_empty() {
        return Some(Vec::new());
    }
    let files = told(reader.descriptors(&ports, inodes))?;
    log::debug!(
        "a pass over all descriptors found {} that are asked for",
        files.len()
    );
    Some(files)
}

/// Adds to who has the ports what is in no table of the namespace: sockets that are only bound.
fn add_only_bound(snapshot: &mut Snapshot, ports: &BTreeSet<u16>, files: Option<&[PortFile]>) {
    let Some(files) = files else {
        snapshot.owners = None;
        return;
    };
    let Some(owners) = &mut snapshot.owners else {
        return;
    };
    let mut known: HashSet<u64> = owners.iter().map(|owner| owner.sk).collect();
    let only_bound = files.iter().map(|file| &file.owner).filter(|owner| {
        owner.netns == snapshot.netns && ports.contains(&owner.local.port()) && known.insert(owner.sk)
    });
    owners.extend(only_bound.cloned().map(Arc::new));
}

/// Who else has these sockets. /proc is searched where the descriptors could not be read; processes that may not be looked
/// into there are counted.
fn holders(files: Option<Vec<PortFile>>, inodes: &HashSet<u64>) -> Holders {
    if inodes.is_empty() {
        return Holders::default();
    }
    let Some(files) = files else {
        let found = proc::holders(inodes).unwrap_or_default();
        log::debug!(
            "a search of /proc found {} descriptors that are asked for",
            found.held.len()
        );
        return found;
    };
    let own = std::process::id();
    let others = files
        .into_iter()
        .filter(|file| file.pid != own && inodes.contains(&file.owner.inode));
    let mut held: Vec<Held> = others
        .map(|file| Held {
            inode: file.owner.inode,
            pid: file.pid,
            comm: file.comm,
            fd: file.fd,
        })
        .collect();
    held.sort_unstable_by_key(|held| (held.pid, held.fd));
    Holders { held, unreadable: 0 }
}

fn told<T>(result: io::Result<T>) -> Option<T> {
    result.inspect_err(|error| log::warn!("{error}")).ok()
}

/// What to ask sock_diag for in one namespace.
#[derive(Default)]
pub struct Wanted {
    /// Local ports.
    pub ports: BTreeSet<u16>,
    /// Those of them that a process listened on or was bound to.
    pub bound: BTreeSet<u16>,
    /// Where it did, as far as there is something to ask about the address.
    pub addresses: BTreeSet<LocalAddress>,
    /// Which of its four lists.
    pub kinds: BTreeSet<(Protocol, Family)>,
}

/// Looks once at a namespace; `None` stands for one that is not there any more, or that was refused before.
///
/// # Errors
/// When sock_diag is missing or broken.
pub fn look(inode: u32, namespace: Option<&Netns>, wanted: &Wanted) -> Result<Snapshot, SockDiagError> {
    let began = Timestamp::now();
    let (sightings, refused) = match namespace.map(|namespace| dump(namespace, wanted)) {
        None => (None, None),
        Some(Err(SockDiagError::Io(error))) if error.kind() == ErrorKind::PermissionDenied => {
            (None, Some(error.to_string()))
        }
        Some(dumped) => (Some(Arc::new(dumped?)), None),
    };
    Ok(Snapshot {
        netns: inode,
        cookie: namespace.and_then(Netns::cookie),
        scope: None,
        began,
        time: Timestamp::now(),
        sightings,
        refused,
        orphan_retries: namespace.and_then(|namespace| namespace.orphan_retries().ok()),
        tcp_timeouts: namespace.and_then(|namespace| namespace.tcp_timeouts().ok()),
        overflow: None,
        owners: None,
        addressing: Addressing::default(),
        shows_bound: false,
        local_ports: None,
        same_destination: None,
    })
}

fn dump(namespace: &Netns, wanted: &Wanted) -> Result<Vec<Sighting>, SockDiagError> {
    let mut sock_diag = SockDiag::open(Some(namespace.as_fd()))?;
    let filter = Filter::all().local_ports(wanted.ports.iter().copied());
    let mut sightings = Vec::new();
    for (protocol, family) in &wanted.kinds {
        sightings.extend(sock_diag.dump(*protocol, *family, &filter)?);
    }
    Ok(sightings)
}

#[cfg(test)]
mod tests {

    use sockleak_core::observed::State;
    use sockleak_core::port::Reuse;
    use sockleak_core::testing::{addr, snapshot};

    use super::*;

    /// A socket that is only bound, to that port.
    fn file(pid: u32, fd: u32, inode: u64, port: u16) -> PortFile {
        let owner = PortOwner {
            sk: 0x1000 + inode,
            netns: snapshot(Vec::new()).netns,
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
            local: addr(&format!("127.0.0.1:{port}")),
            remote: None,
            state: State::Close,
            mini: false,
            reuse: Some(Reuse::default()),
            v6only: None,
            device: 0,
            uid: None,
            cookie: None,
            inode,
            bucket: None,
        };
        let comm = format!("of {pid}");
        PortFile { pid, comm, fd, owner }
    }

    #[test]
    fn holders_are_the_others_in_order_and_of_what_is_asked_for() {
        let own = std::process::id();
        let files = [(own, 3, 7), (30, 4, 7), (20, 9, 8), (20, 5, 7), (10, 3, 9)];
        let files = files.map(|(pid, fd, inode)| file(pid, fd, inode, 80)).to_vec();
        let found = holders(Some(files), &HashSet::from([7, 8]));
        let told: Vec<_> = found
            .held
            .iter()
            .map(|held| (held.pid, held.fd, held.inode))
            .collect();
        assert_eq!(told, [(20, 5, 7), (20, 9, 8), (30, 4, 7)]);
        assert_eq!((found.held[0].comm.as_str(), found.unreadable), ("of 20", 0));
    }

    #[test]
    fn what_is_only_bound_is_added_once_where_it_is() {
        let listening = file(10, 3, 1, 80);
        let mut elsewhere = file(10, 4, 2, 80);
        elsewhere.owner.netns += 1;
        let files = [
            listening.clone(),
            elsewhere,
            file(10, 5, 3, 80),
            file(20, 5, 3, 80),
            file(10, 6, 4, 81),
        ];
        let mut look = snapshot(Vec::new());
        look.owners = Some(vec![Arc::new(listening.owner)]);
        add_only_bound(&mut look, &BTreeSet::from([80]), Some(&files));
        let owners = look.owners.iter().flatten();
        assert_eq!(owners.map(|owner| owner.inode).collect::<Vec<_>>(), [1, 3]);
        add_only_bound(&mut look, &BTreeSet::from([80]), None);
        assert_eq!(look.owners, None);
    }
}
