//! What an orphan becomes if its peer answers at the last moment, and closes as late as it can.

use std::time::Duration;

use crate::expiry::time_wait::{TIMEWAIT, minute};
use crate::expiry::wheel;
use crate::observed::{Sighting, State, TcpTimeouts};

/// `tcp_fin_time` (include/net/tcp.h) is at least three and a half retransmission timeouts.
pub(super) fn least_fin_time(rto: Duration) -> Duration {
    rto.saturating_mul(7) / 2
}

/// How long an orphan may stay after the kernel would have given it up, with that retransmission timeout: FIN_WAIT1 becomes
/// FIN_WAIT2, and then TIME_WAIT when the peer closes; CLOSING becomes TIME_WAIT, and LAST_ACK nothing
/// (`tcp_rcv_state_process`, net/ipv4/tcp_input.c). `None` where `tcp_fin_timeout` is not known. TCP_LINGER2 above it, which
/// sock_diag does not tell, makes it longer.
pub(super) fn longest_life(
    sighting: &Sighting,
    rto: Duration,
    timeouts: Option<&TcpTimeouts>,
    hz: u32,
) -> Option<Duration> {
    match sighting.state {
        State::LastAck => Some(Duration::ZERO),
        State::Closing => Some(minute(hz)),
        _ => {
            let mut longest = fin_wait2(timeouts?.fin_timeout, hz);
            // An ACK with a timestamp measures the round trip anew; without one the timeout stays as long as the
            // retransmissions made it (`tcp_ack_update_rtt`, net/ipv4/tcp_input.c).
            if sighting.timestamps != Some(true) {
                longest = longest.max(fin_wait2(least_fin_time(rto), hz));
            }
            Some(longest.saturating_add(minute(hz)))
        }
    }
}

/// A FIN_WAIT2 with that timeout. The part above a minute is spent twice: as a full socket, and again as a mini socket
/// (`tcp_rcv_state_process`, `tcp_keepalive_timer`).
fn fin_wait2(timeout: Duration, hz: u32) -> Duration {
    let late = |timer: Duration| timer.saturating_add(wheel::slack(hz, timer));
    match timeout.checked_sub(TIMEWAIT) {
        None | Some(Duration::ZERO) => late(timeout),
        Some(above) => late(above).saturating_mul(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{sighting, socket, tcp_timeouts};

    fn life(state: State, timestamps: bool, rto: u64, fin_timeout: u64) -> Option<u64> {
        let seen = Sighting {
            timestamps: Some(timestamps),
            ..sighting(&socket(State::Established).build(), state)
        };
        let timeouts = TcpTimeouts {
            fin_timeout: Duration::from_secs(fin_timeout),
            ..tcp_timeouts()
        };
        let life = longest_life(&seen, Duration::from_millis(rto), Some(&timeouts), 1000);
        life.map(|life| life.as_secs())
    }

    #[test]
    fn a_late_answer_is_followed_by_fin_wait2_and_time_wait() {
        // At 1000 Hz a minute takes 4.096 s more at most.
        assert_eq!(life(State::LastAck, true, 200, 60), Some(0));
        assert_eq!(life(State::Closing, true, 200, 60), Some(64));
        assert_eq!(life(State::FinWait1, true, 200, 60), Some(128));
        assert_eq!(life(State::FinWait1, true, 200, 2), Some(66));
    }

    /// Measured with a timeout of 2 s, and an ACK when the RTO had grown to 3,264 ms: FIN_WAIT2 was armed for 11.4 s with
    /// `tcp_timestamps` 0, and for 2 s with 1.
    #[test]
    fn without_timestamps_the_retransmissions_make_fin_wait2_long() {
        assert_eq!(life(State::FinWait1, false, 3264, 2), Some(76));
        assert_eq!(life(State::FinWait1, true, 3264, 2), Some(66));
    }

    #[test]
    fn the_part_above_a_minute_is_spent_twice() {
        let twice = 2 * (60 + 4);
        assert_eq!(life(State::FinWait1, true, 200, 120), Some(twice + 64));
        // Three and a half times 104 s are 364 s.
        let twice = 2 * (304 + 32);
        assert!(life(State::FinWait1, false, 104_000, 60) <= Some(twice + 65));
        assert!(life(State::FinWait1, false, 104_000, 60) >= Some(2 * 304 + 64));
    }

    #[test]
    fn nothing_is_promised_where_the_timeout_is_not_known() {
        let seen = sighting(&socket(State::Established).build(), State::FinWait1);
        assert_eq!(longest_life(&seen, Duration::ZERO, None, 250), None);
    }
}
