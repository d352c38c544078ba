//! When a leftover is free, from its timer as sock_diag told it.

use std::time::Duration;

use jiff::Timestamp;

use crate::expiry::FreeRule;
use crate::expiry::retransmission::gives_up;
use crate::expiry::wheel;
use crate::observed::packed_time::PackedTime;
use crate::observed::{Protocol, Sighting, Snapshot, State, Timer};

/// TCP_TIMEWAIT_LEN (include/net/tcp.h), the same in every kernel and set by no sysctl.
pub(crate) const TIMEWAIT: Duration = Duration::from_secs(60);

/// When a leftover is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freedom {
    pub rule: FreeRule,
    at: Option<PackedTime>,
    latest: Option<PackedTime>,
}

impl Freedom {
    /// By that rule, between these two moments.
    #[must_use]
    pub fn new(rule: FreeRule, at: Option<Timestamp>, latest: Option<Timestamp>) -> Self {
        Self {
            rule,
            at: at.map(PackedTime::from),
            latest: latest.map(PackedTime::from),
        }
    }

    /// The earliest moment; `None` where no moment can be told.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.at.map(Timestamp::from)
    }

    /// [`Freedom::at`] and the timer wheel's slack.
    #[must_use]
    pub fn latest(&self) -> Option<Timestamp> {
        self.latest.map(Timestamp::from)
    }

    /// No moment can be told.
    #[must_use]
    pub const fn open(rule: FreeRule) -> Self {
        Self {
            rule,
            at: None,
            latest: None,
        }
    }

    /// It was free at that moment.
    #[must_use]
    pub fn now(time: Timestamp) -> Self {
        Self::new(FreeRule::Now, Some(time), Some(time))
    }

    /// The timer was read at some moment of the look.
    fn within(rule: FreeRule, look: &Snapshot, earliest: Duration, latest: Duration) -> Self {
        let at = look.began.saturating_add(earliest).ok();
        Self::new(rule, at, look.time.saturating_add(latest).ok())
    }

    /// The freedom of a socket that was seen, from the timer that it was seen with.
    ///
    /// `fin_wait2_since` is when it became FIN_WAIT2, which only a FIN_WAIT2 that is still a full socket needs.
    #[must_use]
    pub fn of(sighting: &Sighting, snapshot: &Snapshot, hz: u32, fin_wait2_since: Option<Timestamp>) -> Self {
        let expires = sighting.expires;
        if sighting.inode != 0 {
            return Self::open(FreeRule::Holder);
        }
        if sighting.protocol == Protocol::Mptcp {
            return match sighting.timer {
                // What its subflows take after that depends on their peers.
                Timer::Keepalive => {
                    let at = snapshot.began.saturating_add(expires).ok();
                    Self::new(FreeRule::MptcpTimeout, at, None)
                }
                _ => Self::open(FreeRule::MptcpTimeout),
            };
        }
        match (sighting.state, sighting.timer) {
            (State::TimeWait, Timer::TimeWait) | (State::FinWait2, Timer::TimeWait) => {
                let rule = if sighting.state == State::TimeWait {
                    FreeRule::TimewaitTimer
                } else {
                    FreeRule::FinTimeout
                };
                // The wheel's level was chosen when the timer was armed, for a minute as a rule.
                let slack = wheel::slack(hz, expires.max(TIMEWAIT));
                Self::within(rule, snapshot, expires, expires.saturating_add(slack))
            }
            (State::FinWait2, Timer::Keepalive) => full_fin_wait2(sighting, snapshot, hz, fin_wait2_since),
            (State::FinWait2, _) => Self::open(FreeRule::FinTimeout),
            (State::FinWait1 | State::Closing | State::LastAck, Timer::Retransmit) => {
                let retries = snapshot.orphan_retries;
                retries
                    .and_then(|retries| gives_up(sighting, retries, hz))
                    .map_or(Self::open(FreeRule::Retransmits), |span| {
                        Self::within(FreeRule::Retransmits, snapshot, *span.start(), *span.end())
                    })
            }
            (State::FinWait1 | State::Closing | State::LastAck, Timer::Persist) => {
                Self::open(FreeRule::Persist)
            }
            _ => Self::open(FreeRule::Unknown),
        }
    }
}

/// With a fin timeout above a minute, a full FIN_WAIT2 stays for the part above it, and `tcp_keepalive_timer`
/// (net/ipv4/tcp_timer.c) then makes it a time-wait for as long again. It is not one any more where the
/// keepalive timer ran for the whole timeout. Neither is told apart by sock_diag.
fn full_fin_wait2(sighting: &Sighting, look: &Snapshot, hz: u32, since: Option<Timestamp>) -> Freedom {
    let rule = FreeRule::FinTimeout;
    let at = look.began.saturating_add(sighting.expires).ok();
    let armed = since
        .zip(at)
        .and_then(|(since, at)| Duration::try_from(at.duration_since(since)).ok());
    match armed {
        Some(armed) => {
            let again = armed + wheel::slack(hz, armed) * 2;
            Freedom::within(
                rule,
                look,
                sighting.expires,
                sighting.expires.saturating_add(again),
            )
        }
        None => Freedom::new(rule, at, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, sighting, snapshot, socket};

    fn of(change: impl FnOnce(&mut Sighting)) -> Freedom {
        let mut seen = sighting(&socket(State::Established).build(), State::FinWait2);
        change(&mut seen);
        Freedom::of(&seen, &snapshot(Vec::new()), 250, Some(at(50)))
    }

    #[test]
    fn a_mini_socket_ends_by_its_timer_or_a_little_later() {
        for (state, rule) in [
            (State::TimeWait, FreeRule::TimewaitTimer),
            (State::FinWait2, FreeRule::FinTimeout),
        ] {
            let freedom = of(|seen| seen.state = state);
            assert_eq!(freedom.rule, rule);
            assert_eq!(freedom.at(), Some(at(100 + 59_700)));
            assert_eq!(freedom.latest(), Some(at(100 + 59_700 + 2048)));
        }
    }

    /// The kernel has no such timer, but a recording may.
    #[test]
    fn a_timer_without_end_ends_with_time() {
        for timer in [Timer::TimeWait, Timer::Keepalive, Timer::Retransmit] {
            for state in [State::TimeWait, State::FinWait2, State::FinWait1] {
                let freedom = of(|seen| {
                    (seen.state, seen.timer) = (state, timer);
                    (seen.expires, seen.rto) = (Duration::MAX, Some(Duration::MAX));
                });
                let century = at(100 * 365 * 86_400_000);
                let is_late = freedom.at().is_none_or(|at| at > century);
                assert!(is_late, "{state:?}, {timer:?}: {freedom:?}");
            }
        }
    }

    #[test]
    fn an_overdue_timer_ends_at_any_moment() {
        let freedom = of(|seen| seen.expires = Duration::ZERO);
        assert_eq!(freedom.at(), Some(at(100)));
        assert_eq!(freedom.latest(), Some(at(100 + 2048)));
    }

    #[test]
    fn a_full_fin_wait2_takes_the_time_above_a_minute_twice() {
        let freedom = of(|seen| {
            seen.timer = Timer::Keepalive;
            seen.expires = Duration::from_millis(29_950);
        });
        assert_eq!(freedom.rule, FreeRule::FinTimeout);
        assert_eq!(freedom.at(), Some(at(30_050)));
        assert!(freedom.latest() >= Some(at(60_050)));
    }

    #[test]
    fn only_timers_promise_a_moment() {
        let persist = of(|seen| (seen.state, seen.timer) = (State::FinWait1, Timer::Persist));
        assert_eq!(persist, Freedom::open(FreeRule::Persist));
        let held = of(|seen| seen.inode = 70);
        assert_eq!(held, Freedom::open(FreeRule::Holder));
        let orphan = of(|seen| {
            (seen.state, seen.timer) = (State::LastAck, Timer::Retransmit);
            seen.rto = Some(Duration::from_millis(204));
            seen.expires = Duration::from_millis(204);
        });
        assert_eq!(orphan.rule, FreeRule::Retransmits);
        assert!(orphan.at().is_some() && orphan.at() <= orphan.latest());
        let unknown = Snapshot {
            orphan_retries: None,
            ..snapshot(Vec::new())
        };
        let mut seen = sighting(&socket(State::Established).build(), State::LastAck);
        seen.timer = Timer::Retransmit;
        seen.rto = Some(Duration::from_millis(204));
        let freedom = Freedom::of(&seen, &unknown, 250, None);
        assert_eq!(freedom, Freedom::open(FreeRule::Retransmits));
    }
}
