//! Thousands of sockets in lines that a person can read.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use sockleak_core::expiry::{FreeRule, Freedom};
use sockleak_core::observed::{Protocol, State};
use sockleak_core::port::{Occupant, PortSocket, Reuse};
use sockleak_core::verdict::{LeftWhileAlive, Outcome, Report, Side, Sides, Why};

/// What the sockets of one line have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Common<'a> {
    pub outcome: Outcome,
    pub state: Option<State>,
    /// The subflows of each, for MPTCP; `None` for TCP.
    pub subflows: Option<usize>,
    /// `None` for what the process closed itself.
    pub why: Option<Why>,
    pub rule: Option<FreeRule>,
    /// Its options, where they are told.
    pub reuse: Option<Reuse>,
    pub laddr: IpAddr,
    /// The device that it is bound to, where one is told.
    pub device: Option<&'a str>,
    pub lport: Option<u16>,
    pub rport: Option<u16>,
}

/// The remote addresses of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Remote {
    None,
    Address(IpAddr),
    /// The network address and its prefix length.
    Network(IpAddr, u8),
    Any,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub common: Common<'a>,
    pub remote: Remote,
    /// The local port, where all of them have the same.
    pub lport: Option<u16>,
    /// The remote port, likewise.
    pub rport: Option<u16>,
    /// Different remote addresses in it.
    pub addresses: u64,
    pub count: u64,
    /// The first `at` and the last `latest` of its sockets; each is `None` if one of them has none.
    pub free: Option<(Timestamp, Option<Timestamp>)>,
    /// Connections that its listeners had not accepted.
    pub accept_queue: u64,
}

/// Up to so many remote addresses, or else networks, get a line each.
const FEW: usize = 3;

/// The sockets of the inventory, largest group first.
pub(super) fn of_sockets(report: &Report) -> Vec<Group<'_>> {
    let addresses = report
        .sockets
        .iter()
        .map(|socket| (socket.socket.local, socket.socket.remote));
    let sides = Sides::count(addresses);
    fold(report.sockets.iter().map(|report| {
        let socket = &report.socket;
        let side = sides.of(socket.local, socket.remote);
        Item {
            common: Common {
                outcome: report.outcome,
                state: report.state,
                subflows: (socket.protocol == Protocol::Mptcp).then_some(report.subflows.len()),
                why: Some(report.why),
                rule: Some(report.freedom.rule),
                reuse: None,
                laddr: socket.local.ip(),
                device: None,
                lport: (side != Side::Client).then_some(socket.local.port()),
                rport: socket
                    .remote
                    .map(|remote| remote.port())
                    .filter(|_| side != Side::Server),
            },
            remote: socket.remote.map(|remote| remote.ip()),
            lport: Some(socket.local.port()),
            rport: socket.remote.map(|remote| remote.port()),
            count: 1,
            free: moments(&report.freedom),
            accept_queue: socket.accept_queue.unwrap_or(0).into(),
        }
    }))
}

/// What the process closed itself, largest group first.
pub(super) fn of_left_while_alive(groups: &[LeftWhileAlive]) -> Vec<Group<'_>> {
    fold(groups.iter().map(|group| Item {
        common: Common {
            outcome: group.outcome,
            state: None,
            subflows: None,
            why: None,
            rule: None,
            reuse: None,
            laddr: group.laddr,
            device: None,
            lport: group.lport,
            rport: group.rport,
        },
        remote: group.raddr,
        lport: group.lport,
        rport: group.rport,
        count: group.count,
        free: group.last_free.at.map(|at| (at, group.last_free.latest)),
        accept_queue: 0,
    }))
}

/// What has a port, largest group first.
pub(super) fn of_port<'a>(sockets: &[&'a PortSocket]) -> Vec<Group<'a>> {
    fold(sockets.iter().map(|socket| {
        let Occupant { owner, freedom, .. } = &socket.occupant;
        Item {
            common: Common {
                outcome: socket.occupant.outcome(),
                state: Some(owner.state),
                subflows: None,
                why: None,
                rule: Some(freedom.rule),
                reuse: owner.reuse,
                laddr: owner.local.ip(),
                device: socket.device.as_deref(),
                lport: Some(owner.local.port()),
                rport: None,
            },
            remote: owner.remote.map(|remote| remote.ip()),
            lport: Some(owner.local.port()),
            rport: owner.remote.map(|remote| remote.port()),
            count: 1,
            free: moments(freedom),
            accept_queue: 0,
        }
    }))
}

/// One socket, or several that are alike already.
#[derive(Clone, Copy)]
struct Item<'a> {
    common: Common<'a>,
    remote: Option<IpAddr>,
    lport: Option<u16>,
    rport: Option<u16>,
    count: u64,
    free: Option<(Timestamp, Option<Timestamp>)>,
    accept_queue: u64,
}

fn moments(freedom: &Freedom) -> Option<(Timestamp, Option<Timestamp>)> {
    freedom.at().map(|at| (at, freedom.latest()))
}

fn fold<'a>(items: impl Iterator<Item = Item<'a>>) -> Vec<Group<'a>> {
    let mut by_address: HashMap<Common<'_>, HashMap<Option<IpAddr>, Group<'_>>> = HashMap::new();
    for item in items {
        let group = Group {
            common: item.common,
            remote: item.remote.map_or(Remote::None, Remote::Address),
            lport: item.lport,
            rport: item.rport,
            addresses: u64::from(item.remote.is_some()),
            count: item.count,
            free: item.free,
            accept_queue: item.accept_queue,
        };
        by_address
            .entry(item.common)
            .or_default()
            .entry(item.remote)
            .and_modify(|known| known.join(&group, 0))
            .or_insert(group);
    }
    let mut groups = Vec::new();
    for members in by_address.into_values() {
        let mut members: Vec<Group<'_>> = members.into_values().collect();
        if members.len() > FEW {
            members = merge(members, Remote::network);
        }
        if members.len() > FEW {
            members = merge(members, |_| Remote::Any);
        }
        groups.append(&mut members);
    }
    groups.sort_unstable_by(|one, other| {
        let key = |group: &Group<'a>| (group.common, group.remote);
        other
            .count
            .cmp(&one.count)
            .then_with(|| key(one).cmp(&key(other)))
    });
    groups
}

fn merge<'a>(groups: Vec<Group<'a>>, wider: impl Fn(Remote) -> Remote) -> Vec<Group<'a>> {
    let mut merged: HashMap<Remote, Group<'_>> = HashMap::new();
    for mut group in groups {
        let remote = wider(group.remote);
        match merged.get_mut(&remote) {
            Some(known) => {
                known.remote = remote;
                known.join(&group, group.addresses);
            }
            None => {
                // A network with one address in use is that address.
                if remote == Remote::Any {
                    group.remote = remote;
                }
                merged.insert(remote, group);
            }
        }
    }
    merged.into_values().collect()
}

impl Group<'_> {
    fn join(&mut self, other: &Self, addresses: u64) {
        self.addresses += addresses;
        self.count += other.count;
        self.lport = self.lport.filter(|_| self.lport == other.lport);
        self.rport = self.rport.filter(|_| self.rport == other.rport);
        self.accept_queue += other.accept_queue;
        self.free = self
            .free
            .zip(other.free)
            .map(|((at, latest), (other_at, other_latest))| {
                let latest = latest.zip(other_latest).map(|(one, other)| one.max(other));
                (at.min(other_at), latest)
            });
    }
}

impl Remote {
    /// The network that people think in: a /24, or a /64 of IPv6.
    fn network(self) -> Self {
        match self {
            Self::Address(IpAddr::V4(address)) => Self::Network(v4_network(address).into(), 24),
            Self::Address(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(mapped) => Self::Network(v4_network(mapped).to_ipv6_mapped().into(), 120),
                None => {
                    let network = Ipv6Addr::from(u128::from(address) >> 64 << 64);
                    Self::Network(network.into(), 64)
                }
            },
            other => other,
        }
    }
}

fn v4_network(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & 0xffff_ff00)
}

impl std::fmt::Display for Remote {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => formatter.write_str("-"),
            Self::Address(address) => address.fmt(formatter),
            Self::Network(network, prefix) => write!(formatter, "{network}/{prefix}"),
            Self::Any => formatter.write_str("*"),
        }
    }
}

/// A group of the tests.
#[cfg(test)]
pub(super) fn any() -> Group<'static> {
    let mut groups = fold(std::iter::once(tests::item("10.0.0.1")));
    groups.remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn item(remote: &str) -> Item<'static> {
        Item {
            common: Common {
                outcome: Outcome::TimeWait,
                state: Some(State::TimeWait),
                subflows: None,
                why: Some(Why::ClosedByKernel),
                rule: Some(FreeRule::TimewaitTimer),
                reuse: None,
                laddr: [10, 0, 0, 7].into(),
                device: None,
                lport: Some(8080),
                rport: None,
            },
            remote: Some(remote.parse().expect("the test's address is one")),
            lport: Some(8080),
            rport: None,
            count: 1,
            free: None,
            accept_queue: 0,
        }
    }

    fn remotes(items: &[&str]) -> Vec<(u64, String)> {
        fold(items.iter().map(|remote| item(remote)))
            .iter()
            .map(|group| (group.count, group.remote.to_string()))
            .collect()
    }

    #[test]
    fn few_addresses_are_told_and_many_are_a_network() {
        assert_eq!(
            remotes(&["10.0.0.1", "10.0.0.1", "10.0.0.2"]),
            [(2, "10.0.0.1".into()), (1, "10.0.0.2".into())]
        );
        assert_eq!(
            remotes(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.1.9"]),
            [(4, "10.0.0.0/24".into()), (1, "10.0.1.9".into())]
        );
        assert_eq!(
            remotes(&["10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1"]),
            [(4, "*".into())]
        );
    }

    #[test]
    fn networks_of_both_families() {
        let network = |text: &str| {
            let address = text.parse().expect("the test's address is one");
            Remote::Address(address).network().to_string()
        };
        assert_eq!(network("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(network("::ffff:10.0.0.9"), "::ffff:10.0.0.0/120");
        assert_eq!(network("127.0.0.1"), "127.0.0.0/24");
    }

    #[test]
    fn one_without_an_end_takes_the_promise_from_the_group() {
        let moment = Timestamp::UNIX_EPOCH;
        let mut timed = item("10.0.0.1");
        timed.free = Some((moment, Some(moment)));
        assert_eq!(
            fold([timed, timed].into_iter())[0].free,
            Some((moment, Some(moment)))
        );
        let mut open = timed;
        open.free = Some((moment, None));
        assert_eq!(fold([timed, open].into_iter())[0].free, Some((moment, None)));
        assert_eq!(fold([timed, item("10.0.0.1")].into_iter())[0].free, None);
    }
}
