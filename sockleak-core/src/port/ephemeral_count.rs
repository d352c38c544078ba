//! The local ports that leftovers keep from new outgoing connections, and how many are left.
//!
//! The rules are those of `__inet_hash_connect` and `__inet_check_established` (net/ipv4/inet_hashtables.c): connect()
//! takes a port of the range that is not reserved, that no bind() owns, and that is in no connection between the same
//! two addresses and the same remote port. Of a range with an odd number of ports it may miss one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use crate::expiry::time_wait::TIMEWAIT;
use crate::leftover::leftovers;
use crate::observed::{LocalPorts, TwReuse};
use crate::observed::{Sighting, Snapshot, Socket, State, Timer};
use crate::port::local_ports::Ports;
use crate::port::{Ephemeral, Return};
use crate::verdict::{Leftover, Outcome, Report, Side, Sides};

/// The remote ports that sockets of one namespace may be connected to with a port that connect() has chosen.
#[derive(Clone, Debug, Default)]
pub struct Destinations {
    listening: HashSet<u16>,
    /// Local and remote port.
    connected: HashSet<(u16, u16)>,
}

impl Destinations {
    /// Adds a socket.
    pub fn add(&mut self, socket: &Socket) {
        let local = socket.local.port();
        if socket.state_at_death == State::Listen {
            self.listening.insert(local);
        } else if let Some(remote) = socket.remote {
            self.connected.insert((local, remote.port()));
        }
    }

    /// Adds those of another process in the same namespace.
    pub fn extend(&mut self, other: Self) {
        self.listening.extend(other.listening);
        self.connected.extend(other.connected);
    }

    /// The remote ports of those that were added.
    #[must_use]
    pub fn ports(&self, rules: &LocalPorts) -> BTreeSet<u16> {
        let chosen = self
            .connected
            .iter()
            .filter(|(local, _)| rules.has(*local) && !self.listening.contains(local));
        chosen.map(|(_, remote)| *remote).collect()
    }
}

/// The destinations of the leftovers of a report, and whether there are some of which the ports cannot be counted.
/// `listening` are the namespaces and ports that the process listened on.
pub(crate) fn count(
    report: &Report,
    listening: &HashSet<(u32, u16)>,
    snapshots: &[Snapshot],
) -> (Vec<Ephemeral>, bool) {
    let left = || leftovers(report).filter(|left| !listening.contains(&(left.netns, left.local.port())));
    let sides = Sides::count(left().map(|left| (left.local, left.remote)));
    let client = |left: &Leftover| left.remote.is_some() && sides.of(left.local, left.remote) != Side::Server;
    let mut found = Vec::new();
    let mut is_unknown = false;
    for snapshot in snapshots {
        let here = || left().filter(|left| left.netns == snapshot.netns && client(left));
        let (Some(rules), Some(same_destination)) = (&snapshot.local_ports, &snapshot.same_destination)
        else {
            // Without the range any port may be one, but not every report has to say so.
            let shared = |left: &Leftover| sides.of(left.local, left.remote) == Side::Client;
            is_unknown |= match &snapshot.local_ports {
                Some(rules) => here().any(|left| rules.has(left.local.port())),
                None => here().any(|left| shared(&left)),
            };
            continue;
        };
        let ports = Ports::of(snapshot, rules, same_destination, listening);
        let mut destinations: HashMap<Destination, Left> = HashMap::new();
        for left in here().filter(|left| ports.is_open(left.local.port())) {
            if let Some(remote) = left.remote {
                let destination = Destination::new(left.local, remote);
                destinations.entry(destination).or_default().add(&left);
            }
        }
        let mut of_destination: HashMap<Destination, Vec<&Sighting>> = HashMap::new();
        for other in same_destination.iter() {
            let destination = Destination::new(other.local, other.remote);
            if destinations.contains_key(&destination) {
                of_destination.entry(destination).or_default().push(other);
            }
        }
        for (destination, left) in destinations {
            let same_destination = of_destination.get(&destination).map_or(&[][..], Vec::as_slice);
            found.extend(one(
                report.time,
                snapshot,
                &ports,
                destination,
                left,
                same_destination,
            ));
        }
    }
    found.sort_unstable_by_key(|row| {
        let order = (row.connect_fails == Some(false), std::cmp::Reverse(row.in_use));
        (order, row.netns, row.laddr, row.raddr, row.rport)
    });
    (found, is_unknown)
}

/// What a connection and another one must have in common to need different ports.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Destination {
    laddr: IpAddr,
    raddr: IpAddr,
    rport: u16,
}

impl Destination {
    fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            laddr: local.ip().to_canonical(),
            raddr: remote.ip().to_canonical(),
            rport: remote.port(),
        }
    }

    /// As `tcp_twsk_unique` sees it. The peer is then of the same namespace, with the same sysctls.
    fn is_loopback(&self) -> bool {
        self.laddr.is_loopback() || self.raddr.is_loopback()
    }
}

/// What is left towards one destination.
#[derive(Clone, Debug, Default)]
struct Left {
    held: u64,
    in_use: u64,
    returns: Vec<Return>,
}

impl Left {
    fn add(&mut self, left: &Leftover) {
        if left.outcome() == Outcome::Held {
            self.held += 1;
            return;
        }
        self.in_use += 1;
        let freedom = left.freedom;
        let (rule, at, latest) = (freedom.rule, freedom.at(), freedom.latest());
        match self.returns.iter_mut().find(|group| group.rule == rule) {
            Some(group) => {
                group.count += 1;
                group.at = group.at.zip(at).map(|(one, other)| one.max(other));
                group.latest = group.latest.zip(latest).map(|(one, other)| one.max(other));
            }
            None => self.returns.push(Return {
                rule,
                count: 1,
                at,
                latest,
            }),
        }
    }
}

/// One row; `None` where no leftover is towards it, only what another process holds.
fn one(
    time: Timestamp,
    snapshot: &Snapshot,
    ports: &Ports<'_>,
    destination: Destination,
    left: Left,
    same_destination: &[&Sighting],
) -> Option<Ephemeral> {
    let Left {
        held,
        in_use,
        mut returns,
    } = left;
    if in_use == 0 {
        return None;
    }
    returns.sort_unstable_by_key(|group| (group.latest.is_none(), group.latest, group.rule));
    let rules = ports.rules;
    let taken: HashSet<u16> = same_destination.iter().map(|other| other.local.port()).collect();
    let taken = taken.into_iter().filter(|&port| ports.is_open(port)).count() as u64;
    let available = ports.count - taken;

    let takes_over = rules.timestamps
        && match rules.tw_reuse {
            TwReuse::Never => false,
            TwReuse::Always => true,
            TwReuse::Loopback => destination.is_loopback(),
        };
    let reusable: Vec<Timestamp> = same_destination
        .iter()
        .filter(|other| takes_over && ports.is_open(other.local.port()))
        .filter_map(|other| reusable_at(other, time, rules.tw_reuse_delay.unwrap_or(WHOLE_SECOND)))
        .collect();
    // A kernel with that sysctl is one that looks at the substate.
    let may_be_taken_over = takes_over
        && rules.tw_reuse_delay.is_none()
        && same_destination.iter().any(|other| {
            let is_fin_wait2 = (other.state, other.timer) == (State::FinWait2, Timer::TimeWait);
            is_fin_wait2 && ports.is_open(other.local.port())
        });
    let connect_fails = match (available, reusable.iter().any(|&at| at <= time)) {
        (0, false) if may_be_taken_over => None,
        (0, false) => Some(true),
        (0, true) if !destination.is_loopback() => None,
        _ => Some(false),
    };
    let back = same_destination
        .iter()
        .filter(|other| other.timer == Timer::TimeWait && ports.is_open(other.local.port()))
        .filter_map(|other| snapshot.began.saturating_add(other.expires).ok());
    let until = back.chain(reusable.iter().copied()).min();
    let all = |moment: fn(&Return) -> Option<Timestamp>| {
        let moments: Option<Vec<_>> = returns.iter().map(moment).collect();
        moments.and_then(|moments| moments.into_iter().max())
    };
    Some(Ephemeral {
        time,
        netns: snapshot.netns,
        laddr: destination.laddr,
        raddr: destination.raddr,
        rport: destination.rport,
        in_use,
        held,
        range_total: rules.range.len() as u64,
        reserved: rules.range.clone().filter(|&port| !rules.has(port)).count() as u64,
        available,
        reusable: reusable.len() as u64,
        reusable_at: reusable.into_iter().max(),
        tw_reuse: rules.tw_reuse,
        connect_fails,
        connect_fails_until: until.filter(|_| connect_fails != Some(false)),
        free_at: all(|group| group.at),
        free_at_latest: all(|group| group.latest),
        returns,
    })
}

/// How old a TIME_WAIT must be where the kernel compares whole seconds.
const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// sock_diag tells timers in jiffies, of which the longest has 10 ms, and connect() compares milliseconds: one jiffy for
/// the beginning of a timer and one for its reading.
const JIFFIES: Duration = Duration::from_millis(20);

/// When connect() may take over a TIME_WAIT, at the latest; `None` for what is none. FIN_WAIT2 never is, although a mini
/// socket too; older kernels do not look.
fn reusable_at(other: &Sighting, time: Timestamp, delay: Duration) -> Option<Timestamp> {
    let is_time_wait = (other.state, other.timer) == (State::TimeWait, Timer::TimeWait);
    // Its timer ran for a minute when it began, or when it was prolonged since.
    let age = TIMEWAIT.saturating_sub(other.expires);
    let delay = delay.saturating_add(JIFFIES);
    let left = delay.saturating_sub(age);
    let due = age.saturating_sub(delay);
    let at = time.saturating_add(left).ok()?.saturating_sub(due).ok()?;
    is_time_wait.then_some(at)
}

#[cfg(test)]
#[path = "ephemeral_tests.rs"]
mod tests;
