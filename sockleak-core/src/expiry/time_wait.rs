//! The minute of TIME_WAIT.

use std::time::Duration;

use crate::expiry::wheel;

/// TCP_TIMEWAIT_LEN (include/net/tcp.h), the same in every kernel and set by no sysctl.
pub(crate) const TIMEWAIT: Duration = Duration::from_secs(60);

/// How long a TIME_WAIT that begins now lasts at most.
pub(super) fn minute(hz: u32) -> Duration {
    TIMEWAIT + wheel::slack(hz, TIMEWAIT)
}
