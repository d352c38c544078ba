//! When the kernel gives up an orphan whose peer keeps its window closed.
//!
//! `tcp_probe_timer` (net/ipv4/tcp_timer.c) runs at each expiry, before the next probe. It ends an orphan once as many
//! probes as `tcp_orphan_retries` had no answer. An answer sets that count to 0 (`tcp_ack`, net/ipv4/tcp_input.c), but not
//! the doublings of the timeout: once that has come to its maximum, the orphan ends too, if there were as many doublings.
//! There are never more than `tcp_retries2` (`tcp_send_probe0`, net/ipv4/tcp_output.c): where those do not suffice, a peer
//! that answers keeps the orphan for ever.

use std::time::Duration;

use crate::expiry::retransmission::{RTO_MIN, rto_max};
use crate::expiry::span::{GivesUp, Span};
use crate::observed::{Sighting, TcpTimeouts};

/// `ilog2(TCP_RTO_MAX / TCP_RTO_MIN) + 1`: more doublings do not make the timeout longer (`tcp_probe0_when`,
/// include/net/tcp.h).
const MOST_DOUBLINGS: u32 = 10;
/// The sysctls' types are u8.
const MOST_RETRIES: u32 = 255;

/// `None` where sock_diag did not tell the RTO, or the sysctls are not known.
pub(super) fn gives_up(
    sighting: &Sighting,
    orphan_retries: u32,
    timeouts: Option<&TcpTimeouts>,
    hz: u32,
) -> Option<GivesUp> {
    let timeouts = timeouts?;
    let rto_max = rto_max(Some(timeouts));
    let rto = sighting.rto?.clamp(Duration::from_millis(1), rto_max);
    let rules = Rules {
        rto,
        rto_max,
        orphan_retries: orphan_retries.min(MOST_RETRIES),
        retries2: timeouts.retries2.min(MOST_RETRIES),
        hz,
    };
    Some(GivesUp {
        earliest: rules.without_answers(sighting).least,
        latest: rules.with_answers(sighting).map(|span| span.most),
        rto,
    })
}

struct Rules {
    rto: Duration,
    rto_max: Duration,
    orphan_retries: u32,
    retries2: u32,
    hz: u32,
}

impl Rules {
    /// `inet_csk_rto_backoff` (include/net/inet_connection_sock.h) has come to its maximum.
    fn is_at_maximum(&self, doublings: u32) -> bool {
        doubled(self.rto, doublings) >= self.rto_max
    }

    /// How long the timer is armed for after so many doublings (`tcp_probe0_when`).
    fn interval(&self, doublings: u32) -> Duration {
        doubled(self.rto.max(RTO_MIN), doublings.min(MOST_DOUBLINGS)).min(self.rto_max)
    }

    fn next(&self, doublings: u32) -> u32 {
        (doublings + 1).min(self.retries2.max(doublings))
    }

    fn first(&self, sighting: &Sighting) -> (Span, u32) {
        let doublings = u32::from(sighting.backoff);
        let span = Span::until(sighting.expires, self.interval(doublings), self.hz);
        (span, doublings)
    }

    /// At the maximum the limit may be 0: that is what `tcp_orphan_retries` is then if it is not set, or after an ICMP error.
    fn without_answers(&self, sighting: &Sighting) -> Span {
        let (mut expiry, mut doublings) = self.first(sighting);
        let mut probes = u32::from(sighting.retransmits);
        while probes < self.orphan_retries && !self.is_at_maximum(doublings) {
            probes += 1;
            doublings = self.next(doublings);
            expiry.add(self.interval(doublings), self.hz);
        }
        expiry
    }

    /// Each answer arms the timer anew, a round trip after the probe. So does the peer's FIN, once.
    fn with_answers(&self, sighting: &Sighting) -> Option<Span> {
        let (mut expiry, mut doublings) = self.first(sighting);
        while !self.is_at_maximum(doublings) || doublings < self.orphan_retries {
            let next = self.next(doublings);
            if next == doublings {
                return None;
            }
            doublings = next;
            expiry.add(self.interval(doublings), self.hz);
            expiry.most = expiry.most.saturating_add(self.rto);
        }
        expiry.add(self.interval(doublings), self.hz);
        Some(expiry)
    }
}

fn doubled(timer: Duration, doublings: u32) -> Duration {
    timer.saturating_mul(1 << doublings.min(31))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::observed::{State, Timer};
    use crate::testing::{sighting, socket, tcp_timeouts};

    fn orphan(expires: u64, probes: u8, backoff: u8) -> Sighting {
        Sighting {
            timer: Timer::Persist,
            expires: Duration::from_millis(expires),
            rto: Some(Duration::from_millis(204)),
            retransmits: probes,
            backoff,
            ..sighting(&socket(State::Established).build(), State::FinWait1)
        }
    }

    fn given_up(orphan: &Sighting, retries: u32, timeouts: TcpTimeouts) -> (f64, Option<f64>) {
        let end = gives_up(orphan, retries, Some(&timeouts), 250).expect("all is known");
        (
            end.earliest.as_secs_f64(),
            end.latest.map(|latest| latest.as_secs_f64()),
        )
    }

    /// RTO 204 ms, HZ 250, seen after one answered probe: gone after 218.3 s where the peer was unreachable, and after 339.3 s
    /// where it lived and kept its window closed.
    #[test]
    fn the_measured_orphans_are_within_the_range() {
        let (earliest, latest) = given_up(&orphan(408, 0, 1), 8, tcp_timeouts());
        assert!((207.0..218.3).contains(&earliest), "{earliest}");
        let latest = latest.expect("it ends");
        assert!((339.3..500.0).contains(&latest), "{latest}");
    }

    #[test]
    fn silent_peers_are_given_up_after_so_many_probes() {
        // At 204, 612 and 1,428 ms the first three expiries; the third ends it.
        let (earliest, _) = given_up(&orphan(204, 0, 0), 2, tcp_timeouts());
        assert!((1.427..1.429).contains(&earliest), "{earliest}");
        let (earliest, _) = given_up(&orphan(816, 2, 2), 2, tcp_timeouts());
        assert!((0.815..0.817).contains(&earliest), "{earliest}");
    }

    /// With `tcp_rto_max_ms` 1000 and two orphan retries a peer that answers was given up 2.3 to 2.6 s after it had closed its window.
    #[test]
    fn a_smaller_maximum_ends_it_sooner() {
        let timeouts = TcpTimeouts {
            rto_max: Duration::from_secs(1),
            ..tcp_timeouts()
        };
        let (earliest, latest) = given_up(&orphan(204, 0, 0), 2, timeouts);
        let latest = latest.expect("it ends");
        assert!(
            earliest < 2.3 && 2.6 < latest && latest < 5.0,
            "{earliest} {latest}"
        );
    }

    #[test]
    fn too_few_doublings_have_no_end_while_the_peer_answers() {
        let timeouts = TcpTimeouts {
            retries2: 5,
            ..tcp_timeouts()
        };
        let (earliest, latest) = given_up(&orphan(204, 0, 0), 8, timeouts);
        assert_eq!(latest, None);
        // Nine expiries: 204 ms and its doublings to 6,528 ms, which then stays.
        assert!((32.4..32.5).contains(&earliest), "{earliest}");
    }

    #[test]
    fn nothing_is_promised_where_something_is_not_known() {
        assert_eq!(gives_up(&orphan(204, 0, 0), 8, None, 250), None);
        let unknown = Sighting {
            rto: None,
            ..orphan(204, 0, 0)
        };
        assert_eq!(gives_up(&unknown, 8, Some(&tcp_timeouts()), 250), None);
    }

    proptest! {
        #[test]
        fn ends_after_the_next_expiry(
            rto: u32, expires: u64, probes: u8, backoff: u8, retries: u32, retries2: u32, rto_max: u64, hz in 0u32..2000,
        ) {
            let orphan = Sighting {
                rto: Some(Duration::from_micros(rto.into())),
                expires: Duration::from_millis(expires),
                ..orphan(0, probes, backoff)
            };
            let timeouts = TcpTimeouts { retries2, rto_max: Duration::from_millis(rto_max), ..tcp_timeouts() };
            let end = gives_up(&orphan, retries, Some(&timeouts), hz).expect("all is known");
            prop_assert!(end.earliest >= orphan.expires);
            prop_assert!(end.latest.is_none_or(|latest| latest >= end.earliest));
        }
    }
}
