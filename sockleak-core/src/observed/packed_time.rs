//! Times in eight bytes. Every socket has several, and a [`Timestamp`] takes sixteen, or twenty-four where it may be
//! missing.

use std::fmt;
use std::num::NonZero;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Nanoseconds since the epoch. A time beyond the years 1677 to 2262 is the last one in them, and the epoch itself is
/// its first nanosecond.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Timestamp", into = "Timestamp")]
pub struct PackedTime(NonZero<i64>);

impl From<Timestamp> for PackedTime {
    fn from(time: Timestamp) -> Self {
        let end = if time < Timestamp::UNIX_EPOCH {
            i64::MIN
        } else {
            i64::MAX
        };
        let nanoseconds = i64::try_from(time.as_nanosecond()).unwrap_or(end);
        Self(NonZero::new(nanoseconds).unwrap_or(const { NonZero::new(1).unwrap() }))
    }
}

impl From<PackedTime> for Timestamp {
    fn from(moment: PackedTime) -> Self {
        Self::UNIX_EPOCH + SignedDuration::from_nanos(moment.0.get())
    }
}

impl fmt::Debug for PackedTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Timestamp::from(*self).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_nanosecond_comes_back(nanoseconds: i64) {
            prop_assume!(nanoseconds != 0);
            let time = Timestamp::from_nanosecond(nanoseconds.into()).unwrap();
            prop_assert_eq!(Timestamp::from(PackedTime::from(time)), time);
        }
    }

    #[test]
    fn what_is_out_of_range_is_at_its_end() {
        let back = |time| Timestamp::from(PackedTime::from(time)).as_nanosecond();
        assert_eq!(back(Timestamp::MIN), i128::from(i64::MIN));
        assert_eq!(back(Timestamp::MAX), i128::from(i64::MAX));
        assert_eq!(back(Timestamp::UNIX_EPOCH), 1);
        assert_eq!(size_of::<Option<PackedTime>>(), 8);
    }
}
