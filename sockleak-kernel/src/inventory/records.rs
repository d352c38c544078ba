//! The sockets of one process, read from their records.

use std::collections::HashMap;

use sockleak_core::observed::{Socket, SocketId};
use sockleak_ebpf::{ORIGIN_INVENTORY, ORIGIN_LIVE, ORIGIN_SUBFLOW, SocketKey, SocketRecord};

use super::keys::RecordKeys;
use super::maps::{Maps, MapsError};
use super::sharing::Sharers;
use super::translate::Translator;

/// The sockets of one process, as the maps have them now. A report takes them over one by one, and two lists of them would
/// be twice the memory: so each has a box.
#[derive(Default)]
pub struct Records {
    /// What was in its fd table when it died.
    pub inventory: Vec<Box<Socket>>,
    /// What it closed or shut down itself.
    pub closed_alive: Vec<Box<Socket>>,
}

/// For so few keys, lookups take about as long as a pass, which comes by every bucket.
const FEW: usize = 500;

/// Reads the records of these keys: in one pass over the maps, or one by one where they are few or most of what the maps
/// have is of others. A pass takes a third of the time for each record that it comes by.
///
/// # Errors
/// When the kernel refuses to read the maps.
pub fn read(
    maps: &Maps,
    sharers: &Sharers<'_>,
    translator: &Translator,
    keys: &RecordKeys,
) -> Result<Records, MapsError> {
    let mut extra_fds: HashMap<u64, Vec<u32>> = HashMap::new();
    for extra in maps.extra_fds(|key| keys.has_fd(key))? {
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
            _ => records.closed_alive.push(Box::new(socket)),
        }
    };
    let mut late = Vec::new();
    let mut read = |key: SocketKey, mut record: SocketRecord| {
        let borrows = key.origin != ORIGIN_LIVE && record.change_count == 0;
        if borrows && !sharers.complete(&key, &mut record) {
            late.push((key, record));
        } else {
            add(key, record);
        }
    };
    let mut is_read = vec![false; keys.len()];
    if keys.len() > FEW && keys.len() * 3 > keys.among {
        let theirs = |key: &SocketKey| key.tgid == keys.id.pid;
        maps.visit_first(theirs, |key, record| {
            if let Some(place) = keys.position(&key) {
                is_read[place] = true;
                read(key, record);
            }
        })?;
    }
    let rest = keys.iter().zip(is_read).filter(|(_, is_read)| !is_read);
    for (key, _) in rest {
        if let Some(record) = maps.socket(&key) {
            read(key, record);
        }
    }
    sharers.complete_late(&mut late)?;
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
