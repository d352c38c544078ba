//! When the kernel gives up an orphan whose peer does not answer.
//!
//! `tcp_write_timeout` (net/ipv4/tcp_timer.c) runs at each expiry of the retransmission timer, before the next
//! retransmission. It ends an orphan once `tcp_model_timeout(tcp_orphan_retries)` has passed since the first
//! retransmission. So the end is always at an expiry, and which one it is depends on how late each of
//! them came: with an RTO of 200 ms a few milliseconds decide between 102 s and 205 s.

use std::time::Duration;

use crate::expiry::span::{GivesUp, Span};
use crate::observed::{Sighting, TcpTimeouts};

/// TCP_RTO_MIN, the base of the model whatever the connection's own RTO is.
pub(super) const RTO_MIN: Duration = Duration::from_millis(200);
/// TCP_RTO_MAX.
const RTO_MAX: Duration = Duration::from_secs(120);
/// The least that `net.ipv4.tcp_rto_max_ms` (6.15) takes.
const LEAST_RTO_MAX: Duration = Duration::from_secs(1);
/// The sysctl's type is u8.
const MOST_RETRIES: u32 = 255;

/// The longest retransmission timeout (`tcp_rto_max`, include/net/tcp.h). TCP_RTO_MAX_MS, which sock_diag does not tell, may
/// lower it for one socket.
pub(super) fn rto_max(timeouts: Option<&TcpTimeouts>) -> Duration {
    timeouts.map_or(RTO_MAX, |timeouts| timeouts.rto_max.clamp(LEAST_RTO_MAX, RTO_MAX))
}

/// `tcp_model_timeout`: how long `retries` retransmissions take. As many doublings as fit into the longest timeout are
/// modelled, and it is linear from there on.
fn model_timeout(retries: u32, rto_max: Duration) -> Duration {
    let retries = retries.min(MOST_RETRIES);
    let linear_from = (rto_max.as_millis() / RTO_MIN.as_millis()).ilog2();
    let doubled = RTO_MIN * ((2 << retries.min(linear_from)) - 1);
    doubled + rto_max * retries.saturating_sub(linear_from)
}

/// When the kernel gives up, if the peer stays silent; `None` where sock_diag did not tell the RTO. TCP_USER_TIMEOUT, which it
/// does not tell either, takes the place of the model: it may be earlier, or later.
pub(super) fn gives_up(
    sighting: &Sighting,
    orphan_retries: u32,
    timeouts: Option<&TcpTimeouts>,
    hz: u32,
) -> Option<GivesUp> {
    let rto_max = rto_max(timeouts);
    let limit = model_timeout(orphan_retries, rto_max);
    let mut rto = sighting.rto?.clamp(Duration::from_millis(1), rto_max);
    let mut expiry = Span::until(sighting.expires, rto, hz);
    // Since the first retransmission, at that expiry.
    let mut elapsed = Span::default();
    if sighting.retransmits == 0 {
        // It may be the tail loss probe's timer, which is followed by a full RTO.
        expiry.most = expiry.most.saturating_add(rto);
    } else {
        elapsed.add(rto, hz);
        for doubling in 1..u32::from(sighting.retransmits) {
            elapsed.add(rto / (1 << doubling.min(u32::from(sighting.backoff)).min(31)), hz);
        }
    }

    let mut earliest = None;
    let mut first_is_due = sighting.retransmits == 0;
    loop {
        // `retransmits_timed_out` is false before the first retransmission, whose moment is this expiry.
        if !std::mem::take(&mut first_is_due) {
            if earliest.is_none() && elapsed.most >= limit {
                let rest = limit.saturating_sub(elapsed.least);
                earliest = Some(expiry.least.saturating_add(rest));
            }
            if elapsed.least >= limit {
                let earliest = earliest.unwrap_or(expiry.least);
                return Some(GivesUp {
                    earliest,
                    latest: Some(expiry.most.max(earliest)),
                    rto,
                });
            }
        }
        rto = (rto * 2).min(rto_max);
        expiry.add(rto, hz);
        elapsed.add(rto, hz);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use proptest::prelude::*;

    use super::*;
    use crate::observed::{State, Timer};
    use crate::testing::{sighting, socket, tcp_timeouts};

    fn orphan(rto: u64, expires: u64, retransmits: u8) -> Sighting {
        Sighting {
            timer: Timer::Retransmit,
            expires: Duration::from_millis(expires),
            rto: Some(Duration::from_millis(rto)),
            retransmits,
            backoff: retransmits,
            ..sighting(&socket(State::Established).build(), State::FinWait1)
        }
    }

    fn span(orphan: &Sighting) -> RangeInclusive<Duration> {
        let end = gives_up(orphan, 8, None, 250).expect("the RTO is known");
        end.earliest..=end.latest.expect("it ends")
    }

    #[test]
    fn eight_retries_are_modelled_as_102_seconds() {
        assert_eq!(model_timeout(8, RTO_MAX), Duration::from_millis(102_200));
        assert_eq!(model_timeout(9, RTO_MAX), Duration::from_millis(204_600));
        assert_eq!(model_timeout(10, RTO_MAX), Duration::from_millis(324_600));
        assert_eq!(model_timeout(0, RTO_MAX), RTO_MIN);
    }

    #[test]
    fn the_measured_orphan_is_within_the_span() {
        // RTO 204 ms, HZ 250, a peer that drops everything: gone after 107.9 s.
        let measured = Duration::from_millis(107_900);
        let span = span(&orphan(204, 204, 0));
        assert!(span.contains(&measured), "{span:?}");
        assert!(*span.start() > Duration::from_secs(104), "{span:?}");
        assert!(*span.end() < Duration::from_secs(110), "{span:?}");
    }

    #[test]
    fn a_look_in_the_middle_says_the_same_end() {
        // After the third retransmission at 204 + 408 + 816 ms, the next is due 1,632 ms later.
        let span = span(&orphan(1632, 1632, 3));
        let measured = Duration::from_millis(107_900 - 1428);
        assert!(span.contains(&measured), "{span:?}");
    }

    #[test]
    fn an_rto_just_below_the_model_may_cost_another_doubling() {
        let span = span(&orphan(200, 200, 0));
        assert!(*span.start() < Duration::from_secs(103), "{span:?}");
        assert!(*span.end() > Duration::from_secs(204), "{span:?}");
    }

    #[test]
    fn a_smaller_maximum_makes_the_model_linear_sooner() {
        // Doublings to 800 ms, and then one second each.
        assert_eq!(model_timeout(2, LEAST_RTO_MAX), Duration::from_millis(1_400));
        assert_eq!(model_timeout(8, LEAST_RTO_MAX), Duration::from_millis(7_400));
    }

    #[test]
    fn without_an_rto_nothing_is_promised() {
        let unknown = Sighting {
            rto: None,
            ..orphan(204, 204, 0)
        };
        assert_eq!(gives_up(&unknown, 8, None, 250), None);
    }

    proptest! {
        #[test]
        fn always_ends_after_the_next_expiry(
            rto in 0u64..200_000, expires in 0u64..200_000, retransmits: u8, backoff: u8, retries: u32, rto_max: u64, hz in 0u32..2000,
        ) {
            let mut orphan = orphan(rto, expires, retransmits);
            orphan.backoff = backoff;
            let timeouts = TcpTimeouts { rto_max: Duration::from_millis(rto_max), ..tcp_timeouts() };
            let end = gives_up(&orphan, retries, Some(&timeouts), hz).expect("the RTO is known");
            prop_assert!(Some(end.earliest) <= end.latest);
            prop_assert!(end.earliest >= orphan.expires);
        }
    }
}
