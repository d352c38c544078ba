//! When the kernel gives up an orphan whose peer does not answer.
//!
//! `tcp_write_timeout` (net/ipv4/tcp_timer.c) runs at each expiry of the retransmission timer, before the next
//! retransmission. It ends an orphan once `tcp_model_timeout(tcp_orphan_retries)` has passed since the first
//! retransmission. So the end is always at an expiry, and which one it is depends on how late each of
//! them came: with an RTO of 200 ms a few milliseconds decide between 102 s and 205 s.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::expiry::wheel;
use crate::observed::Sighting;

/// TCP_RTO_MIN, the base of the model whatever the connection's own RTO is.
const RTO_MIN: Duration = Duration::from_millis(200);
/// TCP_RTO_MAX. `net.ipv4.tcp_rto_max_ms` (6.15) can lower it, which ends the orphan earlier.
const RTO_MAX: Duration = Duration::from_secs(120);
/// `ilog2(TCP_RTO_MAX / TCP_RTO_MIN)`: as many doublings fit, and the model is linear from there on.
const LINEAR_FROM: u32 = 9;
/// The sysctl's type is u8.
const MOST_RETRIES: u32 = 255;

/// `tcp_model_timeout`: how long `retries` retransmissions take.
fn model_timeout(retries: u32) -> Duration {
    let retries = retries.min(MOST_RETRIES);
    let doubled = RTO_MIN * ((2 << retries.min(LINEAR_FROM)) - 1);
    doubled + RTO_MAX * retries.saturating_sub(LINEAR_FROM)
}

/// In how long after the sighting the kernel gives up, if the peer stays silent; `None` where sock_diag did not
/// tell the RTO. TCP_USER_TIMEOUT, which sock_diag does not tell, may end it earlier.
pub(crate) fn gives_up(
    sighting: &Sighting,
    orphan_retries: u32,
    hz: u32,
) -> Option<RangeInclusive<Duration>> {
    let limit = model_timeout(orphan_retries);
    let mut rto = sighting.rto?.clamp(Duration::from_millis(1), RTO_MAX);
    let mut expiry = Span {
        least: sighting.expires,
        most: sighting.expires.saturating_add(wheel::slack(hz, rto)),
    };
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
                return Some(earliest..=expiry.most.max(earliest));
            }
        }
        rto = (rto * 2).min(RTO_MAX);
        expiry.add(rto, hz);
        elapsed.add(rto, hz);
    }
}

/// A span of time between its nominal length and that with every timer as late as it can be.
#[derive(Clone, Copy, Default)]
struct Span {
    least: Duration,
    most: Duration,
}

impl Span {
    fn add(&mut self, timer: Duration, hz: u32) {
        self.least = self.least.saturating_add(timer);
        self.most = self.most.saturating_add(timer + wheel::slack(hz, timer));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observed::{State, Timer};
    use crate::testing::{sighting, socket};

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

    #[test]
    fn eight_retries_are_modelled_as_102_seconds() {
        assert_eq!(model_timeout(8), Duration::from_millis(102_200));
        assert_eq!(model_timeout(9), Duration::from_millis(204_600));
        assert_eq!(model_timeout(10), Duration::from_millis(324_600));
        assert_eq!(model_timeout(0), RTO_MIN);
    }

    #[test]
    fn the_measured_orphan_is_within_the_span() {
        // RTO 204 ms, HZ 250, a peer that drops everything: gone after 107.9 s.
        let measured = Duration::from_millis(107_900);
        let span = gives_up(&orphan(204, 204, 0), 8, 250).expect("the RTO is known");
        assert!(span.contains(&measured), "{span:?}");
        assert!(*span.start() > Duration::from_secs(104), "{span:?}");
        assert!(*span.end() < Duration::from_secs(110), "{span:?}");
    }

    #[test]
    fn a_look_in_the_middle_says_the_same_end() {
        // After the third retransmission at 204 + 408 + 816 ms, the next is due 1,632 ms later.
        let span = gives_up(&orphan(1632, 1632, 3), 8, 250).expect("the RTO is known");
        let measured = Duration::from_millis(107_900 - 1428);
        assert!(span.contains(&measured), "{span:?}");
    }

    #[test]
    fn an_rto_just_below_the_model_may_cost_another_doubling() {
        let span = gives_up(&orphan(200, 200, 0), 8, 250).expect("the RTO is known");
        assert!(*span.start() < Duration::from_secs(103), "{span:?}");
        assert!(*span.end() > Duration::from_secs(204), "{span:?}");
    }

    #[test]
    fn without_an_rto_nothing_is_promised() {
        let unknown = Sighting {
            rto: None,
            ..orphan(204, 204, 0)
        };
        assert_eq!(gives_up(&unknown, 8, 250), None);
    }

    proptest! {
        #[test]
        fn always_ends_after_the_next_expiry(
            rto in 0u64..200_000, expires in 0u64..200_000, retransmits: u8, backoff: u8, retries: u32, hz in 0u32..2000,
        ) {
            let mut orphan = orphan(rto, expires, retransmits);
            orphan.backoff = backoff;
            let span = gives_up(&orphan, retries, hz).expect("the RTO is known");
            prop_assert!(span.start() <= span.end());
            prop_assert!(*span.start() >= orphan.expires);
        }
    }
}
