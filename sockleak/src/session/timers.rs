//! The moments at which something is due in a trace, and its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sockleak_core::leftover::NextLook;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::look;

/// How often a death that has not settled is looked at.
const STEP: Duration = Duration::from_millis(25);
/// How often lost events are looked for.
const SECOND: Duration = Duration::from_secs(1);
/// How often the maps are swept of what a living process closed long ago.
const SWEEP: Duration = Duration::from_secs(30);
/// The evidence of what died before the end was wanted is taken at the latest this long after: what settles takes a second.
const LAST: Duration = Duration::from_millis(1250);

/// How a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything that was to be reported is.
    Complete,
    /// The user, or `--duration`, wanted no more.
    Cut,
}

/// The moments at which something is due.
pub struct Timers {
    pub step: Interval,
    pub second: Interval,
    pub sweep: Interval,
    look: Option<(Arc<NextLook>, Instant)>,
    ending: Option<Ending>,
}

/// The end is wanted: what has died is reported, and then nothing more.
#[derive(Clone, Copy)]
struct Ending {
    end: End,
    /// Nothing is waited for any longer.
    deadline: Instant,
}

impl Timers {
    pub fn new() -> Self {
        let every = |period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        Self {
            step: every(STEP),
            second: every(SECOND),
            sweep: every(SWEEP),
            look: None,
            ending: None,
        }
    }

    /// What has to be looked at next, and when.
    pub fn schedule(&mut self, wanted: Option<&Arc<NextLook>>) {
        let is_same =
            |(known, _): &(Arc<NextLook>, Instant)| wanted.is_some_and(|wanted| Arc::ptr_eq(known, wanted));
        if !self.look.as_ref().is_some_and(is_same) {
            self.look = wanted.map(|wanted| (Arc::clone(wanted), Instant::now() + look::pause(wanted)));
        }
    }

    /// The next look, and when it is due.
    pub const fn look(&self) -> Option<&(Arc<NextLook>, Instant)> {
        self.look.as_ref()
    }

    /// Begins the end, if it has not begun.
    pub fn wind_up(&mut self, end: End) {
        let deadline = Instant::now() + LAST;
        let ending = self.ending.get_or_insert(Ending { end, deadline });
        // Who wants no more does not want a countdown either.
        if end == End::Cut {
            ending.end = end;
        }
    }

    /// The end that has begun.
    pub fn ending(&self) -> Option<End> {
        self.ending.map(|ending| ending.end)
    }

    /// The end has begun, and nothing is waited for any longer.
    pub fn is_late(&self) -> bool {
        self.ending
            .is_some_and(|ending| Instant::now() >= ending.deadline)
    }
}
