//! What is looked up after a death: the inventory and the holders. Decides nothing.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;

use sockleak_ebpf::{ORIGIN_INVENTORY, ORIGIN_LIVE, ORIGIN_SUBFLOW, SocketKey, SocketRecord};

use super::namespaces::Namespaces;
use super::processes::Processes;
use crate::kernel::proc::{self, Held, Holders};
use crate::kernel::sock_diag::{Filter, SockDiag, SockDiagError};
use crate::kernel::tables::Tables;
use crate::kernel::translate::Translator;
use crate::postmortem::{Family, Holding, Protocol, Snapshot, Socket, State};

/// The sockets of one process, as the maps have them now.
#[derive(Default)]
pub struct Records {
    /// What was in its fd table when it died.
    pub inventory: Vec<Socket>,
    /// What it closed or shut down itself.
    pub live: Vec<Socket>,
    /// Their keys, to forget them by.
    pub keys: Vec<SocketKey>,
}

/// Records of inventories that were reported and forgotten, by `sk`: a process that shared a socket may have
/// died before the one that is reported already, and only the record of the latest death has the changes.
pub type Reported = HashMap<u64, (SocketKey, SocketRecord)>;

/// Reads the sockets of these processes in one pass over the maps. The number is the death's time, by
/// which its further descriptors are found; 0 for a process that lives.
pub fn records(
    tables: &Tables,
    reported: &Reported,
    translator: &Translator,
    processes: &HashMap<u32, u64>,
) -> HashMap<u32, Records> {
    let extra_fds: HashMap<SocketKey, Vec<u32>> = extra_fds(tables, processes);
    let mut found: HashMap<u32, Records> = HashMap::new();
    let mut subflows: HashMap<SocketKey, Vec<Socket>> = HashMap::new();
    for (key, mut record) in tables.sockets(|key| processes.contains_key(&key.tgid)) {
        if key.origin != ORIGIN_LIVE && record.change_count == 0 {
            borrow_changes(tables, reported, &key, &mut record);
        }
        let fds = extra_fds.get(&key).map_or(&[][..], Vec::as_slice);
        let socket = translator.socket(&key, &record, fds);
        let records = found.entry(key.tgid).or_default();
        match key.origin {
            ORIGIN_INVENTORY => records.inventory.push(socket),
            ORIGIN_SUBFLOW => subflows.entry(owner(&key, &record)).or_default().push(socket),
            _ => records.live.push(socket),
        }
        records.keys.push(key);
    }
    for socket in found.values_mut().flat_map(|records| &mut records.inventory) {
        let key = SocketKey {
            sk: socket.id.sk,
            time: socket.id.since,
            tgid: socket.id.tgid,
            origin: ORIGIN_INVENTORY,
        };
        socket.subflows = subflows.remove(&key).unwrap_or_default();
        socket
            .subflows
            .sort_unstable_by_key(|subflow| (subflow.local, subflow.remote));
    }
    found
}

/// The key of the MPTCP socket that a subflow belongs to.
const fn owner(key: &SocketKey, record: &SocketRecord) -> SocketKey {
    SocketKey {
        sk: record.msk,
        origin: ORIGIN_INVENTORY,
        ..*key
    }
}

fn extra_fds(tables: &Tables, processes: &HashMap<u32, u64>) -> HashMap<SocketKey, Vec<u32>> {
    let mut fds: HashMap<SocketKey, Vec<u32>> = HashMap::new();
    for (tgid, time) in processes {
        for extra in tables.extra_fds(*tgid, *time) {
            let key = SocketKey {
                sk: extra.sk,
                time: extra.time,
                tgid: extra.tgid,
                origin: ORIGIN_INVENTORY,
            };
            fds.entry(key).or_default().push(extra.fd);
        }
    }
    fds
}

/// Processes that share a socket and die together each have it in their inventory, but the kernel's changes
/// of its state are recorded with the last of them.
fn borrow_changes(tables: &Tables, reported: &Reported, key: &SocketKey, record: &mut SocketRecord) {
    let latest = tables
        .latest(key.sk)
        .and_then(|latest| Some((latest, tables.socket(&latest)?)));
    let later = [latest, reported.get(&key.sk).copied()]
        .into_iter()
        .flatten()
        .find(|(latest, later)| {
            // Not by their times: of two walks at once, the one that began first may come to the socket last.
            let is_other = latest != key && latest.origin == key.origin;
            is_other && (later.inode, later.msk) == (record.inode, record.msk)
        });
    let Some((_, later)) = later else {
        return;
    };
    record.cookie = later.cookie;
    record.changes = later.changes;
    record.change_count = later.change_count;
    record.reset_sent = later.reset_sent;
    record.reset_reason = later.reset_reason;
    record.reset_received = later.reset_received;
    record.reset_received_in = later.reset_received_in;
}

/// Counts the listeners and the other TCP sockets that living processes have open. Looking gives every
/// socket of their namespaces a cookie, which its time-wait mini socket will inherit.
///
/// # Errors
/// When sock_diag is missing or broken.
pub fn count(pids: &[u32], namespaces: &mut Namespaces) -> Result<(u64, u64), SockDiagError> {
    let mut open: HashMap<u32, HashSet<u64>> = HashMap::new();
    for pid in pids {
        for inode in namespaces.of(*pid) {
            open.entry(inode)
                .or_default()
                .extend(proc::socket_inodes(*pid).unwrap_or_default());
        }
    }
    let (mut listeners, mut connections) = (0, 0);
    for (inode, sockets) in open {
        let Some(namespace) = namespaces.opened(inode) else {
            continue;
        };
        // sock_diag shows the subflows of an MPTCP socket with its inode.
        let mut counted = HashSet::new();
        for protocol in [Protocol::Tcp, Protocol::Mptcp] {
            for family in [Family::Ipv4, Family::Ipv6] {
                let mut sock_diag = SockDiag::open(Some(namespace.as_fd()))?;
                let rows = match sock_diag.dump(protocol, family, &Filter::all()) {
                    // A kernel without MPTCP has no such sockets.
                    Err(SockDiagError::NoHandler(Protocol::Mptcp)) => Vec::new(),
                    rows => rows?,
                };
                for row in rows.iter().filter(|row| sockets.contains(&row.inode)) {
                    if !counted.insert(row.inode) {
                        continue;
                    }
                    if row.state == State::Listen {
                        listeners += 1;
                    } else {
                        connections += 1;
                    }
                }
            }
        }
    }
    Ok((listeners, connections))
}

/// The descriptors that lead to any of these sockets: those that sock_diag shows with an inode, and those
/// whose file had more references than the dead process had descriptors. /proc is searched once.
pub fn holders<'a>(sockets: impl Iterator<Item = &'a Socket>, snapshots: &[Snapshot]) -> Holders {
    let seen: HashSet<u64> = snapshots
        .iter()
        .flat_map(|snapshot| snapshot.sightings.iter().flatten())
        .map(|sighting| sighting.inode)
        .collect();
    let inodes: HashSet<u64> = sockets
        .filter_map(|socket| {
            let inode = socket.inode?;
            let shared = socket
                .references
                .is_some_and(|references| references as usize > socket.fds.len());
            (shared || seen.contains(&inode)).then_some(inode)
        })
        .collect();
    proc::holders(&inodes).unwrap_or_default()
}

/// Those of the holders that have a socket of this dead process, and how they are related to it.
pub fn holdings(pid: u32, sockets: &[Socket], held: &[Held], processes: &Processes) -> Vec<Holding> {
    if held.is_empty() {
        return Vec::new();
    }
    let inodes: HashSet<u64> = sockets.iter().filter_map(|socket| socket.inode).collect();
    held.iter()
        .filter(|held| held.pid != pid && inodes.contains(&held.inode))
        .map(|held| Holding {
            inode: held.inode,
            pid: held.pid,
            comm: held.comm.clone(),
            fd: held.fd,
            relation: processes.relation(pid, held.pid, held.inode),
        })
        .collect()
}
