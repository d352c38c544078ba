//! Leftovers that a report only counts, as those of an earlier version do.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::output::Note;

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

    /// What there is to be known of them.
    pub fn note(&self) -> Option<Note> {
        (!self.is_empty()).then(|| Note::Counted {
            leftovers: self.count,
            ports: self.ports.clone(),
            destinations: self.destinations.clone(),
        })
    }
}
