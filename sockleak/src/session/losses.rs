//! What the programs lost, and when that was noticed.

use sockleak_kernel::clock;

/// How many are kept without asking which of them are needed.
const MANY: usize = 32;

/// Losses of one trace.
#[derive(Default)]
pub struct Losses {
    /// Events that were lost until a moment (boot-time nanoseconds) at which that was noticed. Those that no waiting death
    /// needs are dropped.
    noticed: Vec<(u64, u64)>,
    /// Processes that are not followed, as far as that was told.
    processes: u64,
}

/// What was lost since the last time.
pub struct NewLosses {
    pub events: u64,
    pub processes: u64,
}

impl Losses {
    /// Takes the numbers of the whole trace; what is new, if anything is.
    pub fn notice(&mut self, events: u64, processes: u64) -> Option<NewLosses> {
        let known = self.noticed.last().map_or(0, |(_, events)| *events);
        if events <= known {
            return None;
        }
        // Who reads of the loss may go on at once, and what dies then did not lose these events.
        self.noticed.push((clock::boottime_ns(), events));
        Some(NewLosses {
            events: events - known,
            processes: processes - std::mem::replace(&mut self.processes, processes),
        })
    }

    /// Of so many events, those that were not noticed to be lost before `since` (boot-time nanoseconds).
    pub fn since(&self, since: u64, events: u64) -> u64 {
        let before = self.noticed.iter().rev().find(|(noticed, _)| *noticed < since);
        events - before.map_or(0, |(_, lost)| *lost)
    }

    /// So many that it is worth dropping some.
    pub const fn has_many(&self) -> bool {
        self.noticed.len() > MANY
    }

    /// Drops what no death since then (boot-time nanoseconds) needs.
    pub fn forget_before(&mut self, oldest: u64) {
        let needed = self.noticed.iter().rposition(|(noticed, _)| *noticed < oldest);
        self.noticed.drain(..needed.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_lost_what_was_noticed_after_it() {
        let mut losses = Losses::default();
        assert!(losses.notice(0, 0).is_none() && losses.since(0, 0) == 0);
        let new = losses.notice(3, 1).expect("three are new");
        assert_eq!((new.events, new.processes), (3, 1));
        let died = clock::boottime_ns() + 1;
        assert!(losses.notice(3, 1).is_none());
        assert_eq!((losses.since(0, 5), losses.since(died, 5)), (5, 2));
    }

    #[test]
    fn what_nobody_needs_is_dropped() {
        let mut losses = Losses::default();
        for events in 1..=100 {
            losses.notice(events, 0);
        }
        assert!(losses.has_many());
        let now = clock::boottime_ns() + 1;
        losses.forget_before(now);
        assert_eq!((losses.noticed.len(), losses.since(now, 101)), (1, 1));
    }
}
