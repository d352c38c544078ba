//! What is looked up after a death: the inventory and the holders. Decides nothing.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;

use sockleak_core::observed::{Family, Holding, Protocol, Snapshot, Socket, SocketId, State};
use sockleak_ebpf::{ORIGIN_INVENTORY, ORIGIN_LIVE, ORIGIN_SUBFLOW, SocketKey, SocketRecord};
use sockleak_kernel::proc::{self, Held};
use sockleak_kernel::sock_diag::{SockDiag, SockDiagError};
use sockleak_kernel::tables::{TableError, Tables};
use sockleak_kernel::translate::Translator;

use super::lending::Lenders;
use super::namespaces::Namespaces;
use super::owned::Keys;
use super::processes::{ProcessId, Processes};

/// The sockets of one process, as the maps have them now.
#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "a report takes them over one by one, and two lists of them would be twice the memory"
)]
pub struct Records {
    /// What was in its fd table when it died.
    pub inventory: Vec<Box<Socket>>,
    /// What it closed or shut down itself.
    pub live: Vec<Box<Socket>>,
}

/// For so few keys, lookups take about as long as a pass, which comes by every bucket.
const FEW: usize = 500;

/// Reads the records of these keys: in one pass over the maps, or one by one where they are few or most of what the maps
/// have is of others. A pass takes a third of the time for each record that it comes by.
///
/// # Errors
/// When the kernel refuses to read the maps.
pub fn records(
    tables: &Tables,
    lenders: &Lenders<'_>,
    translator: &Translator,
    keys: &Keys,
) -> Result<Records, TableError> {
    let mut extra_fds: HashMap<u64, Vec<u32>> = HashMap::new();
    for extra in tables.extra_fds(|key| key.tgid == keys.id.pid && key.time == keys.death)? {
        extra_fds.entry(extra.sk).or_default().push(extra.fd);
    }
    let mut records = Records::default();
    records.inventory.reserve_exact(keys.len());
    let mut subflows: HashMap<SocketKey, Vec<Socket>> = HashMap::new();
    let mut add = |key: SocketKey, record: SocketRecord| {
        let fds = extra_fds.get(&key.sk).filter(|_| key.origin == ORIGIN_INVENTORY);
        let socket = translator.socket(&key, &record, fds.map_or(&[], Vec::as_slice));
        match key.origin {
            ORIGIN_INVENTORY => records.inventory.push(Box::new(socket)),
            ORIGIN_SUBFLOW => subflows.entry(owner(&key, &record)).or_default().push(socket),
            _ => records.live.push(Box::new(socket)),
        }
    };
    let mut late = Vec::new();
    let mut read = |key: SocketKey, mut record: SocketRecord| {
        let borrows = key.origin != ORIGIN_LIVE && record.change_count == 0;
        if borrows && !lenders.lend(&key, &mut record) {
            late.push((key, record));
        } else {
            add(key, record);
        }
    };
    let mut is_read = vec![false; keys.len()];
    if keys.len() > FEW && keys.len() * 3 > keys.among {
        let theirs = |key: &SocketKey| key.tgid == keys.id.pid;
        tables.visit_first(theirs, |key, record| {
            if let Some(place) = keys.position(&key) {
                is_read[place] = true;
                read(key, record);
            }
        })?;
    }
    let rest = keys.iter().zip(is_read).filter(|(_, is_read)| !is_read);
    for (key, _) in rest {
        if let Some(record) = tables.socket(&key) {
            read(key, record);
        }
    }
    lenders.lend_late(&mut late)?;
    for (key, record) in late {
        add(key, record);
    }
    if !subflows.is_empty() {
        for socket in &mut records.inventory {
            socket.subflows = subflows.remove(&inventory_key(&socket.id)).unwrap_or_default();
            socket
                .subflows
                .sort_unstable_by_key(|subflow| (subflow.local, subflow.remote));
        }
    }
    Ok(records)
}

fn inventory_key(id: &SocketId) -> SocketKey {
    SocketKey {
        sk: id.sk,
        time: id.since,
        tgid: id.tgid,
        origin: ORIGIN_INVENTORY,
    }
}

/// The key of the MPTCP socket that a subflow belongs to.
const fn owner(key: &SocketKey, record: &SocketRecord) -> SocketKey {
    SocketKey {
        sk: record.msk,
        origin: ORIGIN_INVENTORY,
        ..*key
    }
}

/// Counts the listeners and the other TCP sockets that living processes have open; `None` where these may not be looked
/// at. Looking gives every socket of their namespaces a cookie, which its time-wait mini socket will inherit.
///
/// # Errors
/// When sock_diag is missing or broken.
pub fn count(
    processes: &[ProcessId],
    namespaces: &mut Namespaces,
) -> Result<Option<(u64, u64)>, SockDiagError> {
    let mut open: HashMap<u32, HashSet<u64>> = HashMap::new();
    for id in processes {
        let inodes = match proc::socket_inodes(id.pid) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            inodes => inodes.unwrap_or_default(),
        };
        let of = namespaces.of(*id);
        if of.is_empty() && !inodes.is_empty() {
            return Ok(None);
        }
        for inode in of {
            open.entry(inode).or_default().extend(&inodes);
        }
    }
    let (mut listeners, mut connections) = (0, 0);
    for (inode, mut sockets) in open {
        let Some(namespace) = namespaces.opened(inode) else {
            continue;
        };
        for protocol in [Protocol::Tcp, Protocol::Mptcp] {
            for family in [Family::Ipv4, Family::Ipv6] {
                let mut sock_diag = match SockDiag::open(Some(namespace.as_fd())) {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
                    opened => opened?,
                };
                let shown = sock_diag.each(protocol, family, |row| {
                    // Once: sock_diag shows the subflows of an MPTCP socket with its inode.
                    if sockets.remove(&row.inode) {
                        let count = if row.state == State::Listen {
                            &mut listeners
                        } else {
                            &mut connections
                        };
                        *count += 1;
                    }
                });
                // A kernel without MPTCP has no such sockets.
                if !matches!(shown, Err(SockDiagError::NoHandler(Protocol::Mptcp))) {
                    shown?;
                }
            }
        }
    }
    Ok(Some((listeners, connections)))
}

/// The sockets of the dead that somebody else may hold, put together socket by socket.
#[derive(Default)]
pub struct Shared {
    all: Vec<u64>,
    shared: HashSet<u64>,
}

impl Shared {
    /// Its file has more references than the dead process had descriptors, or nobody knows.
    pub fn add(&mut self, record: &SocketRecord) {
        if record.inode == 0 {
            return;
        }
        if record.references > record.fd_count {
            self.shared.insert(record.inode);
        } else {
            self.all.push(record.inode);
        }
    }

    /// Adds the sockets of another process.
    pub fn extend(&mut self, other: Self) {
        self.all.extend(other.all);
        self.shared.extend(other.shared);
    }

    /// Those that somebody may have: those that are shared, and those that sock_diag shows with an inode.
    #[must_use]
    pub fn inodes(self, snapshots: &[Snapshot]) -> HashSet<u64> {
        let sightings = snapshots.iter().flat_map(Snapshot::seen);
        let seen: HashSet<u64> = sightings.map(|sighting| sighting.inode).collect();
        let mut inodes = self.shared;
        inodes.extend(self.all.into_iter().filter(|inode| seen.contains(inode)));
        inodes
    }
}

/// Those of the holders that have a socket of this process, and how they are related to it. A process that lives is no
/// holder of its own sockets; the PID of a dead one may be another's.
pub fn holdings(
    (pid, lives): (u32, bool),
    records: &Records,
    held: &[Held],
    processes: &Processes,
) -> Vec<Holding> {
    if held.is_empty() {
        return Vec::new();
    }
    let sockets = records.inventory.iter().chain(&records.live);
    let inodes: HashSet<u64> = sockets.filter_map(|socket| socket.inode).collect();
    held.iter()
        .filter(|held| !(lives && held.pid == pid) && inodes.contains(&held.inode))
        .map(|held| Holding {
            inode: held.inode,
            pid: held.pid,
            comm: held.comm.clone(),
            fd: held.fd,
            relation: processes.relation(pid, held.pid, held.inode),
        })
        .collect()
}
