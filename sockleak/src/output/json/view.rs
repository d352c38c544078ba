//! How the domain's words are written in JSON.

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
        serializer.collect_str(&format_args!("{:.9}", self.0))
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
    use sockleak_core::testing::at;

    use super::*;

    #[test]
    fn a_moment_has_nine_digits() {
        let json = serde_json::to_string(&Time(at(250))).unwrap();
        assert_eq!(json, "\"2025-10-09T08:53:20.250000000Z\"");
    }
}
