//! Which local ports connect() may choose in a network namespace.

use std::collections::HashSet;

use crate::observed::{LocalPorts, Sighting, Snapshot, State};

/// The ports of a namespace, whatever the destination.
pub(crate) struct Ports<'a> {
    pub(crate) rules: &'a LocalPorts,
    /// By number: connect() may choose it, if no connection to the destination has it.
    open: Vec<bool>,
    /// How many those are.
    pub(crate) count: u64,
}

impl<'a> Ports<'a> {
    pub(crate) fn of(
        snapshot: &Snapshot,
        rules: &'a LocalPorts,
        same_destination: &[Sighting],
        listening: &HashSet<(u32, u16)>,
    ) -> Self {
        let is_bound = |other: &&Sighting| matches!(other.state, State::Listen | State::BoundInactive);
        let mut bound: HashSet<u16> = same_destination
            .iter()
            .filter(is_bound)
            .map(|other| other.local.port())
            .collect();
        // What a listener's connections leave keeps its port a bound one.
        let seen = snapshot.seen().iter().map(|sighting| sighting.local.port());
        bound.extend(seen.filter(|&port| listening.contains(&(snapshot.netns, port))));
        let open: Vec<bool> = (0..=u16::MAX)
            .map(|port| rules.has(port) && !bound.contains(&port))
            .collect();
        let count = open.iter().filter(|open| **open).count() as u64;
        Self { rules, open, count }
    }

    /// connect() may choose it, or may have chosen it. Where something listens, the connections came from outside.
    pub(crate) fn is_open(&self, port: u16) -> bool {
        self.open[usize::from(port)]
    }
}
