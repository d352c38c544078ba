//! Which of the TIME_WAITs that were due never came to be, because the table of the namespace was full.
//!
//! Each socket tells only that its mini socket is missing; that there was no room tells a counter of the whole
//! namespace (`TCPTimeWaitOverflow`).

use std::collections::HashMap;

use crate::observed::Snapshot;
use crate::verdict::decide::Ending;
use crate::verdict::{Outcome, SocketReport, Why};

/// What a namespace tells of its table of TIME_WAITs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// How often there was no room since the namespace was seen first.
    pub count: u64,
    /// There was none when it was looked at after the death.
    pub is_full: bool,
}

/// Names the full table as the reason where it explains every missing TIME_WAIT of a namespace. Returns how many are
/// missing where it explains some of them, or may: which ones, nothing tells.
pub(crate) fn explain(reports: &mut [SocketReport], snapshots: &[Snapshot]) -> usize {
    let overflows: HashMap<u32, Overflow> = snapshots
        .iter()
        .filter_map(|snapshot| Some((snapshot.netns, snapshot.overflow?)))
        .filter(|(_, overflow)| overflow.count > 0)
        .collect();
    let mut missing: HashMap<u32, Vec<&mut SocketReport>> = HashMap::new();
    for report in reports.iter_mut().filter(|report| is_missing(report)) {
        missing.entry(report.socket.netns).or_default().push(report);
    }
    let mut doubtful = 0;
    for (netns, reports) in missing {
        let Some(overflow) = overflows.get(&netns) else {
            continue;
        };
        if overflow.is_full && overflow.count >= reports.len() as u64 {
            for report in reports {
                report.why = Why::TimeWaitOverflow;
            }
        } else {
            doubtful += reports.len();
        }
    }
    doubtful
}

/// Its time-wait was due and is not there.
fn is_missing(report: &SocketReport) -> bool {
    (report.outcome, report.why) == (Outcome::Closed, Why::Unknown)
        && Ending::of(&report.socket) == Ending::TimeWait
}
