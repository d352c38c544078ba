//! What a process has open before it dies, as the kernel tells it: a report has to name each socket once.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use serde_json::Value;

use crate::judge::{self, Entry};
use crate::report::{LOST_EVENTS, Report, address, number};

/// The sockets of one process by their inodes.
pub struct Inventory(BTreeMap<u64, Known>);

#[derive(Debug, PartialEq, Eq)]
struct Known {
    descriptors: Vec<u64>,
    local: SocketAddr,
    /// `None` for a listener.
    remote: Option<SocketAddr>,
}

impl Inventory {
    /// What a living process has.
    #[track_caller]
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self::in_table(pid, &judge::sockets())
    }

    /// The same, by a table that has every socket of the process.
    #[track_caller]
    #[must_use]
    pub fn in_table(pid: u32, table: &[Entry]) -> Self {
        let entries: HashMap<u64, &Entry> = table.iter().map(|entry| (entry.inode, entry)).collect();
        let mut sockets = BTreeMap::new();
        for (fd, inode) in judge::socket_descriptors(pid) {
            let entry = entries.get(&inode).expect("the table has every socket");
            let known = sockets.entry(inode).or_insert_with(|| Known {
                descriptors: Vec::new(),
                local: entry.local,
                remote: (entry.state != "LISTEN").then_some(entry.remote),
            });
            known.descriptors.push(fd);
            known.descriptors.sort_unstable();
        }
        Self(sockets)
    }

    /// How many sockets.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The report has every one of them once and nothing else.
    #[track_caller]
    pub fn is_all_of(&self, report: &Report) {
        // A kernel that preempts programs may skip every copy of the exit hook, as the report says then.
        assert!(!report["death"].is_null(), "{LOST_EVENTS}{}", report["lost"]);
        assert_eq!(self.told_by(report).len(), self.count(), "sockets in the report");
    }

    /// The inodes of the report's sockets, each of which it has once and as the kernel told it.
    #[track_caller]
    #[must_use]
    pub fn told_by(&self, report: &Report) -> Vec<u64> {
        let mut inodes: Vec<u64> = report
            .sockets()
            .iter()
            .map(|socket| {
                let inode = number(socket, "inode");
                assert_eq!(Some(&Known::of(socket)), self.0.get(&inode), "{socket}");
                inode
            })
            .collect();
        inodes.sort_unstable();
        let rows = inodes.len();
        inodes.dedup();
        assert_eq!(inodes.len(), rows, "a socket is told twice");
        inodes
    }
}

impl Known {
    fn of(socket: &Value) -> Self {
        let fds = socket["fds"].as_array().expect("a list").iter();
        Self {
            descriptors: fds.map(|fd| fd.as_u64().expect("a number")).collect(),
            local: address(&socket["laddr"], &socket["lport"]).expect("every socket has one"),
            remote: address(&socket["raddr"], &socket["rport"]),
        }
    }
}
