//! Which of a connection's two ports is the one that people know it by.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// Whose port a connection is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Its local port, which many connections share.
    Server,
    /// Its remote port, which many connections share.
    Client,
    /// Neither is shared.
    Single,
}

/// How often each port occurs among connections.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    listening: HashSet<u16>,
    local: HashMap<SocketAddr, u64>,
    remote: HashMap<SocketAddr, u64>,
}

impl Sides {
    /// Counts connections and remembers listeners, which are those without a remote address.
    #[must_use]
    pub fn count(connections: impl IntoIterator<Item = (SocketAddr, Option<SocketAddr>)>) -> Self {
        let mut sides = Self::default();
        for (local, remote) in connections {
            if let Some(remote) = remote {
                *sides.local.entry(local).or_default() += 1;
                *sides.remote.entry(remote).or_default() += 1;
            } else {
                sides.listening.insert(local.port());
            }
        }
        sides
    }

    /// The side of one of them: that of a listener's port, else of the port that more connections share.
    #[must_use]
    pub fn of(&self, local: SocketAddr, remote: Option<SocketAddr>) -> Side {
        let Some(remote) = remote else {
            return Side::Server;
        };
        if self.listening.contains(&local.port()) {
            return Side::Server;
        }
        let here = self.local.get(&local).copied().unwrap_or(0);
        let there = self.remote.get(&remote).copied().unwrap_or(0);
        match here.cmp(&there) {
            std::cmp::Ordering::Greater => Side::Server,
            std::cmp::Ordering::Less => Side::Client,
            std::cmp::Ordering::Equal => Side::Single,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::addr;

    #[test]
    fn the_shared_port_tells_the_side() {
        let connections = [
            (addr("10.0.0.7:8080"), Some(addr("10.0.0.1:40001"))),
            (addr("10.0.0.7:8080"), Some(addr("10.0.0.1:40002"))),
            (addr("10.0.0.7:50001"), Some(addr("10.0.0.5:5432"))),
            (addr("10.0.0.7:50002"), Some(addr("10.0.0.5:5432"))),
            (addr("10.0.0.7:50003"), Some(addr("10.0.0.6:443"))),
        ];
        let sides = Sides::count(connections);
        let expected = [
            Side::Server,
            Side::Server,
            Side::Client,
            Side::Client,
            Side::Single,
        ];
        for ((local, remote), side) in connections.into_iter().zip(expected) {
            assert_eq!(sides.of(local, remote), side, "{local} {remote:?}");
        }
    }

    #[test]
    fn a_listener_decides_for_its_port() {
        let sides = Sides::count([
            (addr("0.0.0.0:8080"), None),
            (addr("10.0.0.7:8080"), Some(addr("10.0.0.1:40001"))),
        ]);
        assert_eq!(
            sides.of(addr("10.0.0.7:8080"), Some(addr("10.0.0.1:40001"))),
            Side::Server
        );
    }
}
