//! May bytes be lost that a peer has not acknowledged?
//!
//! FIN_WAIT1, CLOSING and LAST_ACK still send: what is left of the data, and the FIN behind it, which tells the peer
//! that it has everything. A server that closed a connection and lives on leaves them just as one that died does, and
//! its client is still reading. To destroy such a socket cuts the answer: in FIN_WAIT1 the peer gets an RST in the
//! place of the end, in CLOSING and LAST_ACK it gets nothing and waits for ever (`tcp_need_reset`, net/ipv4/tcp.c).
//! So the FIN counts as much as any other byte.

use std::collections::HashSet;
use std::time::Duration;

use crate::leftover::Reason;
use crate::observed::{Sighting, State, Timer};

/// A peer that owes an acknowledgement for so long is taken to be gone.
const SILENCE: Duration = Duration::from_secs(10);
/// TCP_RTO_MIN and TCP_RTO_MAX of include/net/tcp.h.
const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(120);

/// Permission to lose what the peer of one leftover has not acknowledged.
#[derive(Debug)]
pub struct Discard(());

/// When that is permitted.
#[derive(Clone, Debug)]
pub enum DiscardRule {
    /// Always: the user said so, or the leftovers are our own.
    Always,
    /// Where nobody is left on either side. These local ports have living sockets.
    Abandoned { living: HashSet<u16> },
}

impl DiscardRule {
    /// What one look permits. It must show every socket with the local ports of what is judged by it.
    pub fn abandoned<'a>(look: impl IntoIterator<Item = &'a Sighting>) -> Self {
        let living = look.into_iter().filter(|sighting| sighting.is_living());
        Self::Abandoned {
            living: living.map(|sighting| sighting.local.port()).collect(),
        }
    }

    /// Asks for the permission for one leftover.
    ///
    /// # Errors
    /// Why its bytes must not be lost.
    pub fn permit(&self, leftover: &Sighting) -> Result<Discard, Reason> {
        match self {
            Self::Always => Ok(Discard(())),
            Self::Abandoned { living } if living.contains(&leftover.local.port()) => Err(Reason::PortInUse),
            Self::Abandoned { .. } if !leftover.is_silent() => Err(Reason::Unacknowledged),
            Self::Abandoned { .. } => Ok(Discard(())),
        }
    }
}

impl Sighting {
    /// Its peer has not acknowledged the FIN yet, nor maybe data before it.
    #[must_use]
    pub const fn still_sends(&self) -> bool {
        matches!(self.state, State::FinWait1 | State::Closing | State::LastAck)
    }

    /// It is no leftover: it listens, a connection can flow, it is bound, or a file refers to it.
    #[must_use]
    pub const fn is_living(&self) -> bool {
        let lingers = self.still_sends() || matches!(self.state, State::FinWait2 | State::TimeWait);
        !lingers || self.inode != 0
    }

    /// Its peer has acknowledged nothing for a while, though it was sent something all that time ago. The last
    /// acknowledgement alone does not tell: on a connection that was idle it is old when the answer is on its way.
    fn is_silent(&self) -> bool {
        self.last_ack.is_some_and(|ago| ago >= SILENCE) && self.unanswered() >= SILENCE
    }

    /// For how long at least the peer has left unanswered what it was sent. The intervals of the timer double, so the
    /// present one and their number tell how long all of them took.
    fn unanswered(&self) -> Duration {
        let Some(rto) = self.rto else {
            return Duration::ZERO;
        };
        let (interval, earlier) = match self.timer {
            // `icsk_retransmits` after the first transmission.
            Timer::Retransmit => (rto, self.retransmits),
            // `icsk_probes_out`, which each answer of the peer makes 0 (`tcp_ack`, net/ipv4/tcp_input.c).
            Timer::Persist if self.retransmits > 0 => {
                let doubled = rto.max(RTO_MIN) * (1 << self.backoff.min(10));
                (doubled.min(RTO_MAX), self.retransmits - 1)
            }
            _ => return Duration::ZERO,
        };
        let before = interval - interval / (1 << earlier.min(31));
        before + interval.saturating_sub(self.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{addr, sighting, socket};

    /// An orphan after so many retransmissions or probes with a first timeout of 200 ms, the next due in `expires`.
    fn orphan(timer: Timer, sent_again: u8, expires: u64) -> Sighting {
        let doubled = if timer == Timer::Retransmit { sent_again } else { 0 };
        Sighting {
            timer,
            retransmits: sent_again,
            backoff: sent_again,
            rto: Some(RTO_MIN * (1 << doubled)),
            expires: Duration::from_millis(expires),
            last_ack: Some(Duration::from_secs(3600)),
            send_queue: 1,
            ..sighting(&socket(State::Established).build(), State::FinWait1)
        }
    }

    fn permitted(leftover: &Sighting, look: &[Sighting]) -> Result<(), Reason> {
        DiscardRule::abandoned(look).permit(leftover).map(drop)
    }

    #[test]
    fn the_timer_tells_for_how_long_nothing_was_answered() {
        for (timer, sent_again, expires, expected) in [
            // The FIN of a connection that was idle for an hour was sent a moment ago.
            (Timer::Retransmit, 0, 195, 5),
            (Timer::Retransmit, 1, 400, 200),
            (Timer::Retransmit, 5, 6400, 6200),
            (Timer::Retransmit, 5, 2500, 10_100),
            (Timer::Retransmit, 6, 12_800, 12_600),
            // The wheel is late.
            (Timer::Retransmit, 6, 99_999, 12_600),
            // Every probe was answered: the window is shut, and the peer lives.
            (Timer::Persist, 0, 195, 0),
            // The first probe was not, and the second is due 400 ms after it.
            (Timer::Persist, 1, 400, 0),
            (Timer::Persist, 1, 100, 300),
            (Timer::Persist, 6, 12_800, 12_400),
            (Timer::None, 3, 0, 0),
            (Timer::Keepalive, 3, 0, 0),
        ] {
            let unanswered = orphan(timer, sent_again, expires).unanswered();
            let case = format!("{timer:?} {sent_again} {expires}");
            assert_eq!(unanswered, Duration::from_millis(expected), "{case}");
        }
        // Answered probes make the interval longer too, up to two minutes.
        let late = Sighting {
            backoff: 200,
            ..orphan(Timer::Persist, 1, 119_000)
        };
        assert_eq!(late.unanswered(), Duration::from_secs(1));
    }

    #[test]
    fn nothing_is_lost_of_a_peer_that_may_live() {
        let silent = orphan(Timer::Retransmit, 6, 12_800);
        assert_eq!(permitted(&silent, std::slice::from_ref(&silent)), Ok(()));
        let heard = |ago| Sighting {
            last_ack: ago,
            ..silent.clone()
        };
        for ago in [Some(Duration::from_millis(9999)), None] {
            let refused = permitted(&heard(ago), &[]);
            assert_eq!(refused, Err(Reason::Unacknowledged), "{ago:?}");
        }
        let fresh = orphan(Timer::Retransmit, 0, 195);
        assert_eq!(permitted(&fresh, &[]), Err(Reason::Unacknowledged));
        assert!(DiscardRule::Always.permit(&fresh).is_ok());
    }

    #[test]
    fn nothing_is_lost_where_somebody_has_the_port() {
        let silent = orphan(Timer::Retransmit, 6, 12_800);
        for state in State::ALL {
            for (inode, port) in [(0, 8080), (7, 8080), (7, 8081)] {
                let other = Sighting {
                    state,
                    inode,
                    local: addr(&format!("[::]:{port}")),
                    ..silent.clone()
                };
                let lingers = matches!(
                    state,
                    State::TimeWait | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck
                );
                let is_free = port != 8080 || (lingers && inode == 0);
                let expected = if is_free { Ok(()) } else { Err(Reason::PortInUse) };
                let look = [silent.clone(), other];
                assert_eq!(permitted(&silent, &look), expected, "{state:?} {inode} {port}");
            }
        }
    }
}
