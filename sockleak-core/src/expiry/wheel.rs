//! How late a kernel timer may fire.

use std::time::Duration;

/// LVL_BITS and LVL_CLK_SHIFT of kernel/time/timer.c, equal from 5.10 to 7.3.
const LVL_BITS: u32 = 6;
const LVL_CLK_SHIFT: u32 = 3;

/// The deepest level of the wheel (LVL_DEPTH - 1): 8 for HZ above 100, else 7.
const fn deepest(hz: u32) -> u32 {
    if hz > 100 { 8 } else { 7 }
}

/// By how much a timer that was armed for `duration` may fire late, at `hz` ticks a second: one granule of
/// the level it is queued on (`calc_wheel_index` in kernel/time/timer.c). It never fires early.
///
/// A `hz` of 0 counts as 1.
#[must_use]
pub fn slack(hz: u32, duration: Duration) -> Duration {
    let hz = hz.max(1);
    let ticks = duration.as_nanos().saturating_mul(u128::from(hz)) / 1_000_000_000;
    let level = (1..=deepest(hz))
        .take_while(|level| ticks >= ((1u128 << LVL_BITS) - 1) << ((level - 1) * LVL_CLK_SHIFT))
        .count();
    let granule = 1u64 << (LVL_CLK_SHIFT * u32::try_from(level).unwrap_or(0));
    Duration::from_nanos(granule * 1_000_000_000 / u64::from(hz))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minute_is_as_late_as_was_measured() {
        let minute = Duration::from_secs(60);
        assert_eq!(slack(250, minute), Duration::from_millis(2048));
        assert_eq!(slack(1000, minute), Duration::from_millis(4096));
        assert_eq!(slack(300, minute).as_millis(), 1706);
        assert_eq!(slack(100, minute), Duration::from_millis(5120));
    }

    #[test]
    fn a_short_timer_is_one_tick_late() {
        assert_eq!(slack(1000, Duration::ZERO), Duration::from_millis(1));
        assert_eq!(slack(1000, Duration::from_millis(62)), Duration::from_millis(1));
        assert_eq!(slack(1000, Duration::from_millis(63)), Duration::from_millis(8));
    }

    proptest! {
        #[test]
        fn grows_with_the_duration(hz in 0u32..2000, short in 0u64..1_000_000_000, more in 0u64..1_000_000_000) {
            let shorter = slack(hz, Duration::from_millis(short));
            let longer = slack(hz, Duration::from_millis(short + more));
            prop_assert!(shorter <= longer);
        }

        #[test]
        fn is_at_most_an_eighth_beyond_the_first_level(hz in 100u32..2000, millis in 1000u64..3_600_000) {
            let duration = Duration::from_millis(millis);
            // LVL_START is 63 and not 64 granules of the level before, hence a little more than an eighth.
            prop_assert!(slack(hz, duration).as_nanos() * 63 <= duration.as_nanos() * 8 + 63_000_000_000 / u128::from(hz));
        }
    }
}
