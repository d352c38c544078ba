//! How long a test waits for a condition.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

/// An emulated machine sets this to how many times slower it is.
const SLOW: &str = "SOCKLEAK_TEST_SLOW";

/// A duration of an ordinary machine as one of this machine.
#[must_use]
pub fn scaled(duration: Duration) -> Duration {
    let factor = env::var(SLOW).ok().and_then(|factor| factor.parse().ok());
    duration.mul_f64(factor.unwrap_or(1.0))
}

/// The longest that a test waits for anything.
#[must_use]
pub fn limit() -> Duration {
    scaled(Duration::from_secs(20))
}

/// Waits for the condition and fails the test when it does not come true.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(limit(), what, condition);
}

/// The same for what takes long on purpose.
#[track_caller]
pub fn wait_for(longest: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < longest, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An emulated machine.
#[must_use]
pub fn is_slow() -> bool {
    env::var_os(SLOW).is_some()
}
