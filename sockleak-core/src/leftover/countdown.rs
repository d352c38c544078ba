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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observed::{Protocol, State};
    use crate::testing::{at, evidence, sighting, snapshot, socket};
    use crate::verdict::examine;

    fn begin() -> (Countdown, Sighting) {
        let closed = socket(State::Established).build();
        let seen = sighting(&closed, State::FinWait2);
        let evidence = evidence(vec![closed], vec![seen.clone()]);
        let looks = [LookedAt {
            began: evidence.time,
            ..LookedAt::of(&evidence.snapshots[0])
        }];
        let report = examine(evidence);
        let mut countdown = Countdown::new(250);
        countdown.add(leftovers(&report), &looks);
        (countdown, seen)
    }

    fn look_at(millis: i64, sightings: Vec<Sighting>) -> Snapshot {
        Snapshot {
            began: at(millis),
            time: at(millis),
            ..snapshot(sightings)
        }
    }

    #[test]
    fn the_real_moment_lies_between_two_looks() {
        let (mut countdown, mut seen) = begin();
        assert_eq!(countdown.next(at(100)), Some(at(59_800)));
        assert_eq!(countdown.last(), Some(at(59_800)));
        seen.expires = Duration::from_millis(29_700);
        let look = countdown.look(&look_at(30_100, vec![seen]));
        assert!(look.freed.is_empty() && look.moved.is_empty());
        let look = countdown.look(&look_at(60_700, Vec::new()));
        assert_eq!(look.freed.len(), 1);
        assert_eq!(look.freed[0].not_before, at(30_100));
        assert_eq!(look.freed[0].time, at(60_700));
        assert_eq!(look.freed[0].leftover.freedom.rule, FreeRule::FinTimeout);
        assert!(countdown.is_done());
    }

    #[test]
    fn the_peers_fin_starts_another_minute() {
        let (mut countdown, mut seen) = begin();
        seen.state = State::TimeWait;
        seen.expires = Duration::from_secs(60);
        let look = countdown.look(&look_at(30_100, vec![seen]));
        assert_eq!(look.moved.len(), 1);
        assert_eq!(look.moved[0].freedom.at(), Some(at(90_100)));
        assert_eq!(look.moved[0].outcome(), Outcome::TimeWait);
    }

    #[test]
    fn small_steps_add_up_to_a_move() {
        let (mut countdown, mut seen) = begin();
        let mut moved = 0;
        for look in 1..=4 {
            // Chatter of the peer: at each look there are 59.7 s left.
            seen.expires = Duration::from_millis(59_700);
            moved += countdown
                .look(&look_at(100 + look * 600, vec![seen.clone()]))
                .moved
                .len();
        }
        assert_eq!(moved, 2);
    }

    #[test]
    fn a_late_timer_moves_nothing() {
        let (mut countdown, mut seen) = begin();
        seen.expires = Duration::ZERO;
        assert!(countdown.look(&look_at(61_500, vec![seen])).moved.is_empty());
    }

    #[test]
    fn a_namespace_takes_its_leftovers_along() {
        let (mut countdown, _) = begin();
        let gone = Snapshot {
            sightings: None,
            ..look_at(500, Vec::new())
        };
        let look = countdown.look(&gone);
        assert_eq!(look.freed[0].leftover.freedom.rule, FreeRule::NetnsGone);
        assert!(countdown.is_done());
    }

    #[test]
    fn what_a_look_was_not_for_is_not_called_free() {
        let (mut countdown, _) = begin();
        let own = countdown.next_look().next().expect("it is to be looked at").scope;
        let mut elsewhere = own.clone();
        elsewhere.ports = own.ports.iter().map(|port| port + 1).collect();
        let mut others = own.clone();
        others.kinds = [(Protocol::Mptcp, Family::Ipv4)].into();
        for scope in [elsewhere, others] {
            let look = countdown.look(&Snapshot {
                scope: Some(scope),
                ..look_at(500, Vec::new())
            });
            assert!(look.freed.is_empty() && !countdown.is_done());
        }
        let look = countdown.look(&Snapshot {
            scope: Some(own),
            ..look_at(600, Vec::new())
        });
        assert_eq!((look.freed.len(), countdown.is_done()), (1, true));
    }

    #[test]
    fn what_may_not_be_looked_at_is_not_called_free() {
        let (mut countdown, _) = begin();
        let refused = Snapshot {
            sightings: None,
            refused: Some("it needs CAP_SYS_PTRACE".to_owned()),
            ..look_at(500, Vec::new())
        };
        let look = countdown.look(&refused);
        assert!(look.freed.is_empty() && countdown.is_done());
        assert_eq!(look.out_of_sight, 1);
    }
}
