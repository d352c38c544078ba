//! How often it is looked at what is left of deaths. The search for holders costs the more, the more descriptors all processes
//! of the machine have, however little the dead had.

use std::time::{Duration, Instant};

/// In a row of deaths, one look in this time, or in so many times the time that the last search took, if that is longer.
const PERIOD: Duration = Duration::from_millis(250);
const SHARE: u32 = 4;
/// And in no more than this, so that no report comes much later.
const LONGEST: Duration = Duration::from_secs(1);
/// After a quiet time one look more, but not before this time: what has not settled at first mostly has by then.
const STEP: Duration = Duration::from_millis(100);

/// When the next look may be.
pub struct Pace {
    looked: Option<Instant>,
    /// The looks until now have used up the time until then.
    used_until: Option<Instant>,
    /// What the last one used up.
    cost: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            looked: None,
            used_until: None,
            cost: PERIOD,
        }
    }
}

impl Pace {
    pub fn allows(&self, now: Instant) -> bool {
        let stepped = self.looked.is_none_or(|looked| now >= looked + STEP);
        stepped && self.used_until.is_none_or(|until| now + self.cost >= until)
    }

    /// A look began at that moment, and searched for holders for so long.
    pub fn looked(&mut self, began: Instant, searched: Duration) {
        self.looked = Some(began);
        self.cost = (searched * SHARE).clamp(PERIOD, LONGEST);
        self.used_until = Some(self.used_until.map_or(began, |until| until.max(began)) + self.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of the looks of a death that does not settle, which is asked about each millisecond.
    fn looks(pace: &mut Pace, began: Instant, until: u64, searched: u64) -> Vec<u64> {
        let mut looks = Vec::new();
        for millis in 0..until {
            let now = began + Duration::from_millis(millis);
            if pace.allows(now) {
                pace.looked(now, Duration::from_millis(searched));
                looks.push(millis);
            }
        }
        looks
    }

    #[test]
    fn a_row_of_deaths_has_four_looks_a_second() {
        let mut pace = Pace::default();
        let began = Instant::now();
        let first = looks(&mut pace, began, 1_500, 62);
        assert_eq!(first, [0, 100, 250, 500, 750, 1_000, 1_250]);
        let later = began + Duration::from_millis(1_500);
        assert_eq!(looks(&mut pace, later, 600, 62), [0, 250, 500]);
    }

    #[test]
    fn the_first_death_of_a_quiet_time_does_not_wait() {
        let mut pace = Pace::default();
        let began = Instant::now();
        looks(&mut pace, began, 2_000, 0);
        let after_a_while = began + Duration::from_secs(3);
        assert_eq!(looks(&mut pace, after_a_while, 300, 0), [0, 100, 250]);
    }

    #[test]
    fn long_searches_come_less_often_and_once_a_second_at_least() {
        let began = Instant::now();
        let of = |searched| looks(&mut Pace::default(), began, 3_500, searched);
        assert_eq!(of(200), [0, 100, 800, 1_600, 2_400, 3_200]);
        assert_eq!(of(5_000), [0, 100, 1_000, 2_000, 3_000]);
    }
}
