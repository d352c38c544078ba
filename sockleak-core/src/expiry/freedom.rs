//! When a leftover is free, from its timer as sock_diag told it.

use std::time::Duration;

use jiff::Timestamp;

use crate::expiry::answer::{least_fin_time, longest_life};
use crate::expiry::time_wait::{TIMEWAIT, minute};
use crate::expiry::{FreeRule, probes, retransmission, wheel};
use crate::observed::packed_time::PackedTime;
use crate::observed::{Protocol, Sighting, Snapshot, State, Timer};

/// The most that TCP_LINGER2 takes (TCP_FIN_TIMEOUT_MAX, include/net/tcp.h).
const LONGEST_LINGER2: Duration = Duration::from_secs(120);

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

    /// When the timer ends it at the earliest if nothing more arrives; `None` where no moment can be told.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.at.map(Timestamp::from)
    }

    /// When it is gone even if the peer answers and closes as late as it can, and the timer wheel is late; `None` where no
    /// moment can be told. A peer that goes on sending prolongs it: a TIME_WAIT begins anew with each segment in order.
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
                // The wheel's level was chosen when the timer was armed, for a minute as a rule.
                let timeouts = snapshot.tcp_timeouts.as_ref();
                let fin_timeout = timeouts.map_or(TIMEWAIT, |timeouts| timeouts.fin_timeout);
                let armed = expires.max(TIMEWAIT).max(fin_timeout);
                let late = expires.saturating_add(wheel::slack(hz, armed));
                if sighting.state == State::TimeWait {
                    return Self::within(FreeRule::TimewaitTimer, snapshot, expires, late);
                }
                // The peer's FIN makes it a TIME_WAIT for a whole minute (`tcp_timewait_state_process`).
                let late = late.saturating_add(minute(hz));
                Self::within(FreeRule::FinTimeout, snapshot, expires, late)
            }
            (State::FinWait2, Timer::Keepalive) => full_fin_wait2(sighting, snapshot, hz, fin_wait2_since),
            (State::FinWait2, _) => Self::open(FreeRule::FinTimeout),
            (State::FinWait1 | State::Closing | State::LastAck, Timer::Retransmit) => {
                orphan(FreeRule::Retransmits, sighting, snapshot, hz)
            }
            (State::FinWait1 | State::Closing | State::LastAck, Timer::Persist) => {
                orphan(FreeRule::Persist, sighting, snapshot, hz)
            }
            _ => Self::open(FreeRule::Unknown),
        }
    }
}

/// What still sends: until the kernel gives up, or, if the peer answers at the last moment, until what it becomes then is
/// gone.
fn orphan(rule: FreeRule, sighting: &Sighting, look: &Snapshot, hz: u32) -> Freedom {
    let timeouts = look.tcp_timeouts.as_ref();
    let end = look.orphan_retries.and_then(|retries| match rule {
        FreeRule::Persist => probes::gives_up(sighting, retries, timeouts, hz),
        _ => retransmission::gives_up(sighting, retries, timeouts, hz),
    });
    let Some(end) = end else {
        return Freedom::open(rule);
    };
    let at = look.began.saturating_add(end.earliest).ok();
    let latest = end
        .latest
        .zip(longest_life(sighting, end.rto, timeouts, hz))
        .and_then(|(latest, life)| look.time.saturating_add(latest.saturating_add(life)).ok());
    Freedom::new(rule, at, latest)
}

/// With a fin timeout above a minute, a full FIN_WAIT2 stays for the part above it, and `tcp_keepalive_timer`
/// (net/ipv4/tcp_timer.c) then makes it a time-wait for as long again. It is not one any more where the
/// keepalive timer ran for the whole timeout. Neither is told apart by sock_diag. When the peer closes, TIME_WAIT begins.
fn full_fin_wait2(sighting: &Sighting, look: &Snapshot, hz: u32, since: Option<Timestamp>) -> Freedom {
    let rule = FreeRule::FinTimeout;
    let at = look.began.saturating_add(sighting.expires).ok();
    let armed = since
        .zip(at)
        .and_then(|(since, at)| Duration::try_from(at.duration_since(since)).ok());
    let longest = || {
        let fin_timeout = look.tcp_timeouts?.fin_timeout.max(LONGEST_LINGER2);
        let fin_time = fin_timeout.max(least_fin_time(sighting.rto?));
        Some(fin_time.saturating_sub(TIMEWAIT).max(sighting.expires))
    };
    match armed.or_else(longest) {
        Some(armed) => {
            let slack = wheel::slack(hz, armed) * 2;
            let again = armed.saturating_add(slack).saturating_add(minute(hz));
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
    use jiff::SignedDuration;

    use super::*;
    use crate::testing::{at, sighting, snapshot, socket};

    fn of(change: impl FnOnce(&mut Sighting)) -> Freedom {
        let mut seen = sighting(&socket(State::Established).build(), State::FinWait2);
        change(&mut seen);
        Freedom::of(&seen, &snapshot(Vec::new()), 250, Some(at(50)))
    }

    #[test]
    fn a_mini_socket_ends_by_its_timer_or_a_little_later() {
        let freedom = of(|seen| seen.state = State::TimeWait);
        assert_eq!(freedom.rule, FreeRule::TimewaitTimer);
        assert_eq!(freedom.at(), Some(at(100 + 59_700)));
        assert_eq!(freedom.latest(), Some(at(100 + 59_700 + 2048)));
    }

    /// A peer that closed 45 s after the death kept the port for a minute more.
    #[test]
    fn the_peer_may_close_until_the_last_moment() {
        let freedom = of(|seen| seen.state = State::FinWait2);
        assert_eq!(freedom.rule, FreeRule::FinTimeout);
        assert_eq!(freedom.at(), Some(at(100 + 59_700)));
        let minute = 60_000 + 2048;
        assert_eq!(freedom.latest(), Some(at(100 + 59_700 + 2048 + minute)));
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
        assert_eq!(freedom.latest(), Some(at(100 + 2048 + 62_048)));
    }

    #[test]
    fn a_full_fin_wait2_takes_the_time_above_a_minute_twice() {
        let freedom = of(|seen| {
            seen.timer = Timer::Keepalive;
            seen.expires = Duration::from_millis(29_950);
        });
        assert_eq!(freedom.rule, FreeRule::FinTimeout);
        assert_eq!(freedom.at(), Some(at(30_050)));
        assert!(freedom.latest() >= Some(at(60_050 + 62_048)));
    }

    #[test]
    fn a_full_fin_wait2_of_which_the_beginning_is_not_known_has_a_latest_moment_too() {
        let mut seen = sighting(&socket(State::Established).build(), State::FinWait2);
        seen.timer = Timer::Keepalive;
        seen.rto = Some(Duration::from_millis(204));
        let mut look = snapshot(Vec::new());
        let latest = |look: &Snapshot| Freedom::of(&seen, look, 250, None).latest();
        // By TCP_LINGER2 it may be a mini socket for a minute after that, and then a TIME_WAIT.
        assert!(latest(&look) >= Some(at(100 + 59_700 + 60_000 + 62_048)));
        assert!(latest(&look) <= Some(at(100 + 59_700 + 66_000 + 62_048)));
        look.tcp_timeouts = None;
        assert_eq!(latest(&look), None);
    }

    #[test]
    fn only_timers_promise_a_moment() {
        let without_rto = of(|seen| (seen.state, seen.timer) = (State::FinWait1, Timer::Persist));
        assert_eq!(without_rto, Freedom::open(FreeRule::Persist));
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

    fn orphan_of(state: State, timer: Timer) -> (Timestamp, Timestamp) {
        let freedom = of(|seen| {
            (seen.state, seen.timer, seen.timestamps) = (state, timer, Some(true));
            (seen.rto, seen.expires) = (Some(Duration::from_millis(204)), Duration::from_millis(204));
        });
        freedom.at().zip(freedom.latest()).expect("both are known")
    }

    /// The kernel gives up after 107.9 s. What was acknowledged just before stays two minutes more.
    #[test]
    fn the_peer_may_answer_until_the_kernel_gives_up() {
        let (gives_up, gone) = orphan_of(State::LastAck, Timer::Retransmit);
        assert!(
            gives_up < at(108_000) && at(108_000) < gone && gone < at(110_000),
            "{gone}"
        );
        let (same, closing) = orphan_of(State::Closing, Timer::Retransmit);
        assert_eq!(
            (same, closing),
            (gives_up, gone + SignedDuration::from_millis(62_048))
        );
        let (same, fin_wait1) = orphan_of(State::FinWait1, Timer::Retransmit);
        assert_eq!(
            (same, fin_wait1),
            (gives_up, gone + SignedDuration::from_millis(2 * 62_048))
        );
    }

    #[test]
    fn a_closed_window_ends_too() {
        let (silent, gone) = orphan_of(State::LastAck, Timer::Persist);
        assert!(at(104_000) < silent && silent < at(105_000), "{silent}");
        assert!(at(340_000) < gone, "{gone}");
        let (same, fin_wait1) = orphan_of(State::FinWait1, Timer::Persist);
        assert_eq!(
            (same, fin_wait1),
            (silent, gone + SignedDuration::from_millis(2 * 62_048))
        );
    }
}
