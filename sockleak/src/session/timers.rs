//! The moments at which something is due in a trace, and its end.

use std::time::{Duration, Instant};

use sockleak_core::leftover::Countdown;
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
    look_at: Option<Instant>,
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
            look_at: None,
            ending: None,
        }
    }

    /// Plans the next look, if there is anything to look at and none is planned. Further reports do not put it off: deaths may
    /// go on for ever.
    pub fn plan_look(&mut self, countdown: &Countdown) {
        if countdown.is_done() {
            self.look_at = None;
        } else if self.look_at.is_none() {
            self.look_at = Some(Instant::now() + look::pause(countdown));
        }
    }

    /// When the next look is due; `None` when nothing is left.
    pub const fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// It was looked: what was seen says when the next look is due.
    pub const fn looked(&mut self) {
        self.look_at = None;
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

#[cfg(test)]
mod tests {
    use sockleak_core::leftover::{LookedAt, leftovers};
    use sockleak_core::testing::{sample, sample_evidence};

    use super::*;

    #[tokio::test]
    async fn a_new_report_does_not_put_off_the_look_at_the_others() {
        let looks: Vec<LookedAt> = sample_evidence().snapshots.iter().map(LookedAt::of).collect();
        let mut timers = Timers::new();
        let mut countdown = Countdown::new(250);
        timers.plan_look(&countdown);
        assert_eq!(timers.look_at(), None);
        for _ in 0..3 {
            let planned = timers.look_at();
            countdown.add(leftovers(&sample()), &looks);
            timers.plan_look(&countdown);
            assert!(timers.look_at().is_some() && (planned.is_none() || planned == timers.look_at()));
        }
        timers.looked();
        assert_eq!(timers.look_at(), None);
    }
}
