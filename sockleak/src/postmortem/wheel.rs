//! How late the kernel's timers fire.

use std::time::Duration;

/// Buckets of a level: `1 << LVL_BITS` (kernel/time/timer.c).
const LEVEL_SIZE: u64 = 64;
/// Each level's buckets are `1 << LVL_CLK_SHIFT` times as long as those of the level below.
const LEVEL_FACTOR: u64 = 8;
/// LVL_DEPTH, for HZ above 100.
const LEVELS: u32 = 9;

/// How much later than asked a timer of that duration fires at most.
///
/// The timer wheel puts it into a bucket that ends after its expiry (`calc_wheel_index`), and the bucket's
/// length grows with the duration: up to 63 ticks one tick, up to 503 ticks eight, and so on. A timer
/// never fires early.
#[must_use]
pub fn slack(hz: u32, duration: Duration) -> Duration {
    let hz = u64::from(hz.max(1));
    let ticks = duration.as_nanos() * u128::from(hz) / 1_000_000_000;
    let mut bucket = 1;
    for _ in 1..LEVELS {
        if ticks < u128::from((LEVEL_SIZE - 1) * bucket) {
            break;
        }
        bucket *= LEVEL_FACTOR;
    }
    Duration::from_nanos(bucket * 1_000_000_000 / hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_wait_ends_up_to_seconds_late() {
        let of_a_minute = |hz| slack(hz, Duration::from_secs(60)).as_millis();
        assert_eq!(of_a_minute(100), 5120);
        assert_eq!(of_a_minute(250), 2048);
        assert_eq!(of_a_minute(300), 1706);
        assert_eq!(of_a_minute(1000), 4096);
    }

    #[test]
    fn short_timers_are_exact_to_a_tick() {
        let ticks = |ticks| slack(1000, Duration::from_millis(ticks)).as_millis();
        assert_eq!(
            [ticks(0), ticks(62), ticks(63), ticks(503), ticks(504)],
            [1, 1, 8, 8, 64]
        );
        assert_eq!(slack(0, Duration::MAX), Duration::from_secs(8_u64.pow(8)));
    }
}
