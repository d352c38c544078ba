//! Leftovers that a report only counts, as those of an earlier version do.

use std::collections::BTreeSet;
use std::net::SocketAddr;

/// So many commands are named.
const NAMED: usize = 5;

/// How many there are, and where.
#[derive(Debug, Default)]
pub struct Unnamed {
    count: u64,
    ports: BTreeSet<u16>,
    /// Where they are connected to from ports that the report does not tell.
    destinations: BTreeSet<SocketAddr>,
}

impl Unnamed {
    /// Adds a group. A port of 0 is not told.
    pub fn add(&mut self, local: SocketAddr, remote: Option<SocketAddr>, count: u64) {
        if count == 0 {
            return;
        }
        self.count = self.count.saturating_add(count);
        if local.port() != 0 {
            self.ports.insert(local.port());
        } else {
            self.destinations.extend(remote);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What there is to be known of them: the commands that find them.
    pub fn note(&self) -> Option<String> {
        let ports = self
            .ports
            .iter()
            .map(|port| format!("`sockleak free {port}` frees them"));
        let towards = self.destinations.iter().map(|remote| {
            let ip = remote.ip();
            let whole = match remote.port() {
                0 => ip.to_string(),
                _ => remote.to_string(),
            };
            format!("`ss -tan dst {whole}` lists their ports, and `sockleak free PORT` frees each")
        });
        let commands: Vec<String> = ports.chain(towards).take(NAMED).collect();
        (!self.is_empty()).then(|| {
            format!(
                "{} leftovers that the process had closed while it lived are in the report by their number only; {}",
                self.count,
                commands.join("; ")
            )
        })
    }
}
