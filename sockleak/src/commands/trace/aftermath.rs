//! What is looked up after a death: the inventory and the holders. Decides nothing.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;

use sockleak_ebpf::{
    ORIGIN_INVENTORY, ORIGIN_LIVE, ORIGIN_SUBFLOW, STATE_CHANGES, SocketKey, SocketRecord, StateChange,
};

use super::namespaces::Namespaces;
use super::owned::Keys;
use super::processes::Processes;
use crate::kernel::proc::{self, Held, Holders};
use crate::kernel::sock_diag::{SockDiag, SockDiagError};
use crate::kernel::tables::{TableError, Tables};
use crate::kernel::translate::Translator;
use crate::postmortem::{Family, Holding, Protocol, Snapshot, Socket, SocketId, State};

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

/// Records of inventories that were reported and forgotten, by `sk`: a process that shared a socket may have
/// died before the one that is reported already, and only the record of the first death has the changes.
pub type Reported = HashMap<u64, (SocketKey, SocketRecord)>;

/// Where the changes of a socket's state may be that its own record does not have.
pub struct Lenders<'a> {
    pub reported: &'a Reported,
    /// Records whose memory another socket has by now, by `sk`.
    pub aside: &'a HashMap<u64, Vec<(SocketKey, SocketRecord)>>,
}

/// Reads the records of these keys.
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
    for extra in tables.extra_fds(|key| key.tgid == keys.pid && key.time == keys.death)? {
        extra_fds.entry(extra.sk).or_default().push(extra.fd);
    }
    let mut records = Records::default();
    records.inventory.reserve_exact(keys.len());
    let mut subflows: HashMap<SocketKey, Vec<Socket>> = HashMap::new();
    for key in keys.iter() {
        let Some(mut record) = tables.socket(&key) else {
            continue;
        };
        if key.origin != ORIGIN_LIVE && record.change_count == 0 {
            borrow_changes(tables, lenders, &key, &mut record);
        }
        let fds = extra_fds.get(&key.sk).filter(|_| key.origin == ORIGIN_INVENTORY);
        let socket = translator.socket(&key, &record, fds.map_or(&[], Vec::as_slice));
        match key.origin {
            ORIGIN_INVENTORY => records.inventory.push(Box::new(socket)),
            ORIGIN_SUBFLOW => subflows.entry(owner(&key, &record)).or_default().push(socket),
            _ => records.live.push(Box::new(socket)),
        }
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

/// The changes of a socket's state go to the record that came first: that of another process which shares the
/// socket and died with this one, or that of the living process which had shut it down. What they tell of the time
/// since the death is true of this record too.
fn borrow_changes(tables: &Tables, lenders: &Lenders<'_>, key: &SocketKey, record: &mut SocketRecord) {
    let mut lent: Vec<_> = tables.followed(key.sk).into_iter().collect();
    lent.extend(lenders.reported.get(&key.sk));
    lent.extend(lenders.aside.get(&key.sk).into_iter().flatten());
    borrow_from(&lent, key, record);
}

/// Of two lenders the one in the map may have taken the place of the other when that was forgotten, and then it has
/// only what came later.
fn borrow_from(lenders: &[(SocketKey, SocketRecord)], key: &SocketKey, record: &mut SocketRecord) {
    let is_next = |change: &StateChange| change.time >= key.time && change.from == record.state;
    let lent = lenders.iter().find_map(|(other, lender)| {
        let is_same = (lender.inode, lender.msk) == (record.inode, record.msk);
        // What is followed since the death is another socket in the same memory.
        let is_of_before = other.origin == ORIGIN_LIVE && other.time < key.time;
        let lends = other != key && (is_same || is_of_before);
        let known = usize::from(lender.change_count).min(STATE_CHANGES);
        let first = lender.changes[..known].iter().position(is_next)?;
        lends.then_some((lender, first, known))
    });
    let Some((lender, first, known)) = lent else {
        return;
    };
    record.cookie = lender.cookie;
    record.changes = [StateChange::default(); STATE_CHANGES];
    record.changes[..known - first].copy_from_slice(&lender.changes[first..known]);
    record.change_count = lender.change_count - first as u8;
    record.reset_sent = lender.reset_sent;
    record.reset_reason = lender.reset_reason;
    record.reset_received = lender.reset_received;
    record.reset_received_in = lender.reset_received_in;
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
    for (inode, mut sockets) in open {
        let Some(namespace) = namespaces.opened(inode) else {
            continue;
        };
        for protocol in [Protocol::Tcp, Protocol::Mptcp] {
            for family in [Family::Ipv4, Family::Ipv6] {
                let mut sock_diag = SockDiag::open(Some(namespace.as_fd()))?;
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
    Ok((listeners, connections))
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

    /// The descriptors that lead to those that are shared, and to those that sock_diag shows with an inode. /proc is
    /// searched once.
    #[must_use]
    pub fn holders(self, snapshots: &[Snapshot]) -> Holders {
        let sightings = snapshots.iter().flat_map(Snapshot::seen);
        let seen: HashSet<u64> = sightings.map(|sighting| sighting.inode).collect();
        let mut inodes = self.shared;
        inodes.extend(self.all.into_iter().filter(|inode| seen.contains(inode)));
        proc::holders(&inodes).unwrap_or_default()
    }
}

/// Those of the holders that have a socket of this dead process, and how they are related to it.
pub fn holdings(pid: u32, records: &Records, held: &[Held], processes: &Processes) -> Vec<Holding> {
    if held.is_empty() {
        return Vec::new();
    }
    let sockets = records.inventory.iter().chain(&records.live);
    let inodes: HashSet<u64> = sockets.filter_map(|socket| socket.inode).collect();
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

#[cfg(test)]
mod tests {
    use sockleak_ebpf::state;

    use super::*;

    fn key(tgid: u32) -> SocketKey {
        SocketKey {
            sk: 1,
            time: u64::from(tgid),
            tgid,
            origin: ORIGIN_INVENTORY,
        }
    }

    fn listener() -> SocketRecord {
        SocketRecord {
            state: state::LISTEN,
            inode: 7,
            ..SocketRecord::default()
        }
    }

    #[test]
    fn an_heir_without_changes_lends_none() {
        let mut reported = listener();
        reported.change_count = 1;
        reported.changes[0] = StateChange {
            time: 100,
            from: state::LISTEN,
            to: state::CLOSE,
            ..StateChange::default()
        };
        let heir = (key(20), listener());
        let mut record = listener();
        borrow_from(&[heir, (key(10), reported)], &key(30), &mut record);
        assert_eq!((record.change_count, record.changes[0].time), (1, 100));

        let mut alone = listener();
        borrow_from(&[heir], &key(30), &mut alone);
        assert_eq!(alone, listener());
    }

    #[test]
    fn only_what_was_followed_before_the_death_is_the_same_socket() {
        let connection = SocketRecord {
            state: state::ESTABLISHED,
            inode: 7,
            ..SocketRecord::default()
        };
        let mut closed = connection;
        (closed.inode, closed.change_count) = (0, 1);
        closed.changes[0] = StateChange {
            time: 100,
            from: state::ESTABLISHED,
            to: state::FIN_WAIT1,
            ..StateChange::default()
        };
        for (since, borrowed) in [(20, 1), (40, 0)] {
            let live = SocketKey {
                origin: ORIGIN_LIVE,
                time: since,
                ..key(30)
            };
            let mut record = connection;
            borrow_from(&[(live, closed)], &key(30), &mut record);
            assert_eq!(record.change_count, borrowed, "followed since {since}");
        }
    }
}
