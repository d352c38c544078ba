//! Timers that follow each other, and when the last of them ends an orphan.

use std::time::Duration;

use crate::expiry::wheel;

/// A span of time between its nominal length and that with every timer as late as it can be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub least: Duration,
    pub most: Duration,
}

impl Span {
    /// Until a timer fires of which so much is left, and which was armed for `armed`.
    pub(super) fn until(left: Duration, armed: Duration, hz: u32) -> Self {
        Self {
            least: left,
            most: left.saturating_add(wheel::slack(hz, armed)),
        }
    }

    /// Another timer, armed when the one before fired.
    pub(super) fn add(&mut self, timer: Duration, hz: u32) {
        self.least = self.least.saturating_add(timer);
        self.most = self
            .most
            .saturating_add(timer.saturating_add(wheel::slack(hz, timer)));
    }
}

/// In how long after a sighting the kernel gives up an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivesUp {
    /// If the peer stays silent.
    pub earliest: Duration,
    /// If it does not, or with every timer as late as it can be; `None` where it may go on for ever.
    pub latest: Option<Duration>,
    /// The retransmission timeout at that moment.
    pub rto: Duration,
}
