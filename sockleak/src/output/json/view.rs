//! How the domain's words are written in JSON.

use std::cell::Cell;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sockleak_core::observed::{self, Death};

use super::words::{Cause, SignalName};

/// A moment: RFC 3339 in UTC with nine digits.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut last = LAST.get();
        match last.text(self.0) {
            Some(text) => {
                let done = serializer.serialize_str(text);
                LAST.set(last);
                done
            }
            None => serializer.collect_str(&format_args!("{:.9}", self.0)),
        }
    }
}

const DAY: i64 = 24 * 60 * 60;
const LENGTH: usize = "2026-01-01T00:00:00.000000000Z".len();

thread_local! {
    /// A report has some moments of each socket, all of a few days: for the calendar that is one question.
    static LAST: Cell<Written> = const { Cell::new(Written { day: -1, text: [0; LENGTH] }) };
}

/// A moment as it was written last.
#[derive(Clone, Copy)]
struct Written {
    /// Days since the epoch.
    day: i64,
    text: [u8; LENGTH],
}

impl Written {
    /// Writes a moment of any year from 1970 to 9999.
    fn text(&mut self, time: Timestamp) -> Option<&str> {
        let nanosecond = u32::try_from(time.subsec_nanosecond()).ok()?;
        let second = u64::try_from(time.as_second()).ok()?;
        let day = time.as_second() / DAY;
        if self.day != day {
            self.text = format!("{time:.9}").into_bytes().try_into().ok()?;
            self.day = day;
        }
        let mut put = |place: usize, digits: usize, mut number: u64| {
            for digit in self.text[place..place + digits].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        put(11, 2, second / 3600 % 24);
        put(14, 2, second / 60 % 60);
        put(17, 2, second % 60);
        put(20, 9, nanosecond.into());
        str::from_utf8(&self.text).ok()
    }
}

/// An array that is written item by item, each through its view.
pub(super) struct Each<'a, T, V>(pub(super) &'a [T], pub(super) fn(&'a T) -> V);

impl<T, V: Serialize> Serialize for Each<'_, T, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "death_report"))]
pub(super) struct DeathView<'a> {
    time: Time,
    cause: Cause,
    signal: Option<u8>,
    signal_name: Option<SignalName>,
    core_dumped: bool,
    exit_code: Option<u8>,
    oom: bool,
    sent_by: Option<SenderView<'a>>,
    core_dump_ms: Option<u64>,
    dump_interrupted: Option<u8>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "sender"))]
struct SenderView<'a> {
    pid: u32,
    comm: &'a str,
}

impl<'a> DeathView<'a> {
    pub(super) fn new(death: &'a Death) -> Self {
        let (cause, signal, core_dumped, exit_code) = match death.cause {
            observed::Cause::Exit { code } => (Cause::Exit, None, false, Some(code)),
            observed::Cause::Signal { signal, core_dumped } => {
                (Cause::Signal, Some(signal), core_dumped, None)
            }
        };
        Self {
            time: Time(death.time),
            cause,
            signal,
            signal_name: signal.and_then(SignalName::of),
            core_dumped,
            exit_code,
            oom: death.oom,
            sent_by: death.sent_by.as_ref().map(|sender| SenderView {
                pid: sender.pid,
                comm: &sender.comm,
            }),
            core_dump_ms: death.core_dump.map(millis),
            dump_interrupted: death.dump_interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_are_written_as_the_calendar_has_them(moments in prop::collection::vec(-DAY..=5 * DAY, 1..8), start: i64) {
            let start = Timestamp::from_nanosecond(start.into()).unwrap();
            for seconds in moments {
                let time = start + jiff::SignedDuration::new(seconds, 987_654_321);
                let json = serde_json::to_string(&Time(time)).unwrap();
                prop_assert_eq!(json, format!("\"{time:.9}\""));
            }
        }
    }

    #[test]
    fn the_ends_of_time_are_written() {
        for time in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            assert_eq!(
                serde_json::to_string(&Time(time)).unwrap(),
                format!("\"{time:.9}\"")
            );
        }
    }
}
