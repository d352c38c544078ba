//! One look at the network namespaces of a death: sock_diag's answer, and who has the ports. Decides nothing.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::rc::Rc;

use jiff::Timestamp;

use super::namespaces::Namespaces;
use super::rivals;
use crate::kernel::local_ports;
use crate::kernel::netns::Netns;
use crate::kernel::port_table::PortReader;
use crate::kernel::sock_diag::{self, Filter, SockDiag, SockDiagError};
use crate::postmortem::{Destinations, Endpoint, Family, PortOwner, Protocol, Sighting, Snapshot, Socket};

/// What is to be looked at after deaths, put together socket by socket.
#[derive(Default)]
pub struct Looks {
    namespaces: HashMap<u32, Place>,
}

/// A network namespace that is to be looked at.
#[derive(Default)]
struct Place {
    /// A process that had a socket there.
    pid: u32,
    wanted: Wanted,
    destinations: Destinations,
}

impl Looks {
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
        if Endpoint::of(socket).is_some() {
            wanted.bound.insert(socket.local.port());
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

    /// Looks once at every namespace.
    ///
    /// # Errors
    /// When sock_diag is missing or broken; a namespace that is gone is no error.
    pub fn look(
        self,
        namespaces: &mut Namespaces,
        reader: Option<&mut PortReader>,
    ) -> Result<Vec<Snapshot>, SockDiagError> {
        let mut reader = reader.map(|reader| {
            let places = self.namespaces.values();
            let bound: BTreeSet<u16> = places
                .flat_map(|place| place.wanted.bound.iter().copied())
                .collect();
            Bound::read(reader, &bound.into_iter().collect::<Vec<_>>())
        });
        self.namespaces
            .into_iter()
            .map(|(inode, place)| {
                let Place {
                    pid,
                    wanted,
                    destinations,
                } = place;
                let namespace = namespaces.get(pid, inode);
                let local_ports = namespace.and_then(|namespace| local_ports::read(namespace).ok());
                let mut snapshot = look(inode, namespace, &wanted)?;
                if let (Some(reader), Some(namespace)) = (&mut reader, namespace) {
                    snapshot.owners = reader.owners(namespace, &wanted.bound);
                }
                if let (Some(namespace), Some(rules)) = (namespace, &local_ports) {
                    snapshot.rivals = rivals::of(namespace, &destinations.ports(rules))?.map(Rc::new);
                }
                snapshot.local_ports = local_ports;
                snapshot.shows_bound =
                    snapshot.owners.is_some() || (!wanted.bound.is_empty() && sock_diag::lists_bound());
                snapshot.overflow = namespaces.overflow(inode);
                if snapshot.sightings.is_none() && snapshot.refused.is_none() {
                    snapshot.refused = namespaces.refused(inode).cloned();
                }
                Ok(snapshot)
            })
            .collect()
    }
}

impl Place {
    fn extend(&mut self, other: Self) {
        self.wanted.ports.extend(other.wanted.ports);
        self.wanted.bound.extend(other.wanted.bound);
        self.wanted.kinds.extend(other.wanted.kinds);
        self.destinations.extend(other.destinations);
    }
}

/// Who has the ports that processes listened on or were bound to.
struct Bound<'a> {
    reader: &'a mut PortReader,
    /// Sockets that somebody has a descriptor of: only those may be in no table of a namespace.
    held: Option<Vec<PortOwner>>,
}

impl<'a> Bound<'a> {
    fn read(reader: &'a mut PortReader, ports: &[u16]) -> Self {
        let files = if ports.is_empty() {
            Ok(Vec::new())
        } else {
            reader.files(ports)
        };
        let held = told(files).map(|files| files.into_iter().map(|file| file.owner).collect());
        Self { reader, held }
    }

    /// `None` where it cannot be read; why is a warning, and the report then knows the dead process's sockets only.
    fn owners(&mut self, namespace: &Netns, ports: &BTreeSet<u16>) -> Option<Vec<Rc<PortOwner>>> {
        let ports: Vec<u16> = ports.iter().copied().collect();
        if ports.is_empty() {
            return None;
        }
        let mut owners = told(self.reader.owners(namespace.as_fd(), &ports))?;
        let listed: HashSet<u64> = owners.iter().map(|owner| owner.sk).collect();
        // An MPTCP socket has its port by a subflow, which is listed.
        let only_bound = self.held.as_ref()?.iter().filter(|owner| {
            owner.netns == namespace.inode()
                && owner.protocol == Protocol::Tcp
                && ports.contains(&owner.local.port())
                && !listed.contains(&owner.sk)
        });
        owners.extend(only_bound.cloned());
        // collect() would keep the memory of the list that it consumes.
        let mut shared = Vec::with_capacity(owners.len());
        shared.extend(owners.into_iter().map(Rc::new));
        Some(shared)
    }
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
        Some(dumped) => (Some(Rc::new(dumped?)), None),
    };
    Ok(Snapshot {
        netns: inode,
        began,
        time: Timestamp::now(),
        sightings,
        refused,
        orphan_retries: namespace.and_then(|namespace| namespace.orphan_retries().ok()),
        overflow: None,
        owners: None,
        shows_bound: false,
        local_ports: None,
        rivals: None,
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
