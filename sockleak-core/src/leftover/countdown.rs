//! Following what a report left until it is free.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::expiry::FreeRule;
use crate::expiry::Freedom;
use crate::observed::{Family, Scope, Sighting, Snapshot};
use crate::verdict::{Leftover, Outcome, Report, SocketReport};

/// A leftover that was there at one look and gone at the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// As it was at the last look that showed it.
    pub leftover: Leftover,
    /// When that look began.
    pub not_before: Timestamp,
    /// When the look was that did not show it any more.
    pub time: Timestamp,
}

/// What one look changed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub freed: Vec<Freed>,
    /// Those with another state or another moment than at the look before, such as a FIN_WAIT2 that became a
    /// TIME_WAIT.
    pub moved: Vec<Leftover>,
    /// How many may not be looked at any more: they are followed no longer.
    pub out_of_sight: usize,
}

/// The sockets of a report that have to be followed until they are free: its leftovers, what is still held, and
/// what the process left while it lived.
///
/// A socket that no look ever showed is not among them: it cannot be seen to go.
pub fn leftovers(report: &Report) -> impl Iterator<Item = Leftover> + Clone {
    let of_the_death = report.sockets.iter().flat_map(parts).filter_map(|socket| {
        let followed = matches!(
            socket.outcome,
            Outcome::Held
                | Outcome::TimeWait
                | Outcome::FinWait2
                | Outcome::FinWait1
                | Outcome::Closing
                | Outcome::LastAck
        );
        Some(Leftover {
            pid: report.process.pid,
            netns: socket.socket.netns,
            protocol: socket.socket.protocol,
            local: socket.socket.local,
            remote: socket.socket.remote,
            cookie: socket.seen_cookie.filter(|_| followed)?,
            state: socket.state?,
            fin_wait2_since: socket.socket.fin_wait2_since(),
            freedom: socket.freedom,
        })
    });
    of_the_death.chain(report.closed_alive.iter().cloned())
}

/// What has to be followed of an entry: the TCP sockets that an MPTCP socket left, which outlive it, or itself.
fn parts(report: &SocketReport) -> &[SocketReport] {
    let left = |subflow: &SocketReport| subflow.seen_cookie.is_some();
    if report.outcome != Outcome::Held && report.subflows.iter().any(left) {
        &report.subflows
    } else {
        std::slice::from_ref(report)
    }
}

/// That a namespace was looked at.
#[derive(Clone, Copy, Debug)]
pub struct LookedAt {
    /// Its inode.
    pub netns: u32,
    /// What tells it from a later one with the same inode; `None` where that is not known.
    pub cookie: Option<u64>,
    /// When the look began: what it showed was there at that moment.
    pub began: Timestamp,
}

impl LookedAt {
    /// What that look tells of itself.
    #[must_use]
    pub const fn of(snapshot: &Snapshot) -> Self {
        Self {
            netns: snapshot.netns,
            cookie: snapshot.cookie,
            began: snapshot.began,
        }
    }
}

/// What is to be seen of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLook {
    /// Its inode.
    pub netns: u32,
    /// What tells it from a later one with the same inode; `None` where that is not known.
    pub cookie: Option<u64>,
    pub scope: Scope,
}

/// A difference below this between two computed moments is the clock's and the timer's, not the socket's.
const JITTER: SignedDuration = SignedDuration::from_secs(1);

/// Leftovers on their way to be free.
#[derive(Clone, Debug, Default)]
pub struct Countdown {
    hz: u32,
    namespaces: HashMap<u32, Namespace>,
}

#[derive(Clone, Debug)]
struct Namespace {
    looked: Timestamp,
    /// What tells it from a later one with the same inode; `None` where that is not known.
    cookie: Option<u64>,
    /// By cookie.
    leftovers: HashMap<u64, Leftover>,
}

impl Countdown {
    /// Begins with nothing to follow. `hz` is CONFIG_HZ.
    #[must_use]
    pub fn new(hz: u32) -> Self {
        Self {
            hz,
            namespaces: HashMap::new(),
        }
    }

    /// Adds the leftovers of a report, which were last seen by these looks.
    pub fn add(&mut self, leftovers: impl IntoIterator<Item = Leftover>, looks: &[LookedAt]) {
        for leftover in leftovers {
            let Some(look) = looks.iter().find(|look| look.netns == leftover.netns) else {
                continue;
            };
            let namespace = self
                .namespaces
                .entry(leftover.netns)
                .or_insert_with(|| Namespace {
                    looked: look.began,
                    cookie: look.cookie,
                    leftovers: HashMap::new(),
                });
            namespace.leftovers.insert(leftover.cookie, leftover);
        }
    }

    /// Compares a look at a namespace with the one before. A namespace that is gone took all its leftovers along.
    pub fn look(&mut self, snapshot: &Snapshot) -> Look {
        let mut look = Look::default();
        if snapshot.refused.is_some() {
            let namespace = self.namespaces.remove(&snapshot.netns);
            look.out_of_sight = namespace.map_or(0, |namespace| namespace.leftovers.len());
            return look;
        }
        let Some(namespace) = self.namespaces.get_mut(&snapshot.netns) else {
            return look;
        };
        let mut gone = std::mem::take(&mut namespace.leftovers);
        for sighting in snapshot.seen() {
            let Some(mut leftover) = gone.remove(&sighting.cookie) else {
                continue;
            };
            if leftover.update(sighting, snapshot, self.hz) {
                look.moved.push(leftover.clone());
            }
            namespace.leftovers.insert(sighting.cookie, leftover);
        }
        // A recording was made with a countdown of its own, which may have followed less.
        let is_asked_for = |leftover: &Leftover| {
            let scope = snapshot.scope.as_ref().filter(|_| snapshot.sightings.is_some());
            scope.is_none_or(|scope| leftover.is_among(scope))
        };
        let kept = gone.extract_if(|_, leftover| !is_asked_for(leftover));
        namespace.leftovers.extend(kept);
        look.freed = gone
            .into_values()
            .map(|mut leftover| {
                if snapshot.sightings.is_none() {
                    leftover.freedom = Freedom::open(FreeRule::NetnsGone);
                }
                Freed {
                    leftover,
                    not_before: namespace.looked,
                    time: snapshot.time,
                }
            })
            .collect();
        look.freed
            .sort_unstable_by_key(|freed| (freed.leftover.local, freed.leftover.remote));
        namespace.looked = snapshot.began;
        if namespace.leftovers.is_empty() {
            self.namespaces.remove(&snapshot.netns);
        }
        look
    }

    /// What the next look has to show: all that is not free yet.
    pub fn next_look(&self) -> impl Iterator<Item = NamespaceLook> {
        self.namespaces.iter().map(|(&netns, namespace)| {
            let mut look = NamespaceLook {
                netns,
                cookie: namespace.cookie,
                ..NamespaceLook::default()
            };
            for leftover in namespace.leftovers.values() {
                look.scope.ports.insert(leftover.local.port());
                look.scope.kinds.insert((leftover.protocol, leftover.family()));
            }
            look
        })
    }

    /// Those that are not free yet.
    pub fn leftovers(&self) -> impl Iterator<Item = &Leftover> + '_ {
        self.namespaces
            .values()
            .flat_map(|namespace| namespace.leftovers.values())
    }

    /// True when everything is free.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// The first moment after `now` at which one of them may be free.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.leftovers()
            .filter_map(|leftover| leftover.freedom.at())
            .filter(|&at| at > now)
            .min()
    }

    /// When the last of those is free for which a moment can be told, if nothing more arrives.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        self.leftovers()
            .filter_map(|leftover| leftover.freedom.at())
            .max()
    }
}

impl Leftover {
    const fn family(&self) -> Family {
        if self.local.is_ipv6() {
            Family::Ipv6
        } else {
            Family::Ipv4
        }
    }

    fn is_among(&self, scope: &Scope) -> bool {
        scope.ports.contains(&self.local.port()) && scope.kinds.contains(&(self.protocol, self.family()))
    }

    /// Takes over what a look said; true when the state or the moment is another than before.
    fn update(&mut self, sighting: &Sighting, snapshot: &Snapshot, hz: u32) -> bool {
        if self.freedom.rule == FreeRule::MptcpTimeout && sighting.state == self.state {
            // Only its MPTCP socket has the timer.
            return false;
        }
        let freedom = Freedom::of(sighting, snapshot, hz, self.fin_wait2_since);
        let same_moment = match (self.freedom.at(), freedom.at()) {
            (Some(before), Some(now)) => now.duration_since(before).abs() < JITTER || overdue(sighting),
            (before, now) => before == now,
        };
        let moved = sighting.state != self.state || freedom.rule != self.freedom.rule || !same_moment;
        // What was told last stays the measure: many small steps are a move as well.
        if moved {
            self.state = sighting.state;
            self.freedom = freedom;
        }
        moved
    }
}

/// Its timer should have fired: the wheel is late, and the moment of each look is the earliest one.
fn overdue(sighting: &Sighting) -> bool {
    sighting.expires.is_zero()
}

#[cfg(test)]
#[path = "countdown_tests.rs"]
mod tests;
