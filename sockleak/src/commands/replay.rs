//! `sockleak replay`: judges a recording again.

use anyhow::Result;
use jiff::tz::{Offset, TimeZone};
use sockleak_core::examiner::{Examiner, Wanted};
use sockleak_core::recording::Header;

use super::cli::{Common, ReplayArgs};
use crate::output::Notice;
use crate::session::Replay;

/// Prints what the trace would print today. A recording that was cut is replayed as far as it goes, and said to be cut.
///
/// # Errors
/// When the recording cannot be used, or stdout cannot be written.
pub fn run(common: &Common, args: &ReplayArgs) -> Result<u8> {
    let mut replay = Replay::open(&args.file)?;
    let mut output = common.open_output_in(zone(replay.header()), args.summary);
    let mut examiner = Examiner::new(Wanted {
        only_failed: args.failed,
        countdown: true,
    });
    while let Some(observation) = replay.read()? {
        for event in examiner.take(observation) {
            output.take(&event)?;
        }
    }
    output.finish()?;
    if !replay.is_complete() {
        output.notice(&Notice::RecordingCut)?;
    }
    Ok(0)
}

/// The zone of the machine on which it was recorded: people there speak of its times.
fn zone(header: &Header) -> Option<TimeZone> {
    let named = header.zone.as_ref().and_then(|name| TimeZone::get(name).ok());
    let fixed = || Offset::from_seconds(header.utc_offset).ok().map(TimeZone::fixed);
    named.or_else(fixed)
}
