//! Which of the TIME_WAITs that were due never came to be, because the table of the namespace was full.
//!
//! Each socket tells only that its mini socket is missing; that there was no room tells a counter of the whole
//! namespace (`TCPTimeWaitOverflow`).

use std::collections::HashMap;

use crate::observed::{Overflow, Snapshot, Socket};
use crate::verdict::decide::Ending;
use crate::verdict::socket_verdict::Verdict;
use crate::verdict::{Outcome, Why};

/// Names the full table as the reason where it explains every missing TIME_WAIT of a namespace. Returns how many are
/// missing where it explains some of them, or may: which ones, nothing tells.
pub(crate) fn explain(sockets: &[Box<Socket>], verdicts: &mut [Verdict], snapshots: &[Snapshot]) -> usize {
    let overflows: HashMap<u32, Overflow> = snapshots
        .iter()
        .filter_map(|snapshot| Some((snapshot.netns, snapshot.overflow?)))
        .filter(|(_, overflow)| overflow.count > 0)
        .collect();
    let mut missing: HashMap<u32, Vec<&mut Verdict>> = HashMap::new();
    let all = sockets.iter().zip(verdicts);
    for (socket, verdict) in all.filter(|(socket, verdict)| is_missing(socket, verdict)) {
        missing.entry(socket.netns).or_default().push(verdict);
    }
    let mut doubtful = 0;
    for (netns, verdicts) in missing {
        let Some(overflow) = overflows.get(&netns) else {
            continue;
        };
        if overflow.is_full && overflow.count >= verdicts.len() as u64 {
            for verdict in verdicts {
                verdict.why = Why::TimeWaitOverflow;
            }
        } else {
            doubtful += verdicts.len();
        }
    }
    doubtful
}

/// Its time-wait was due and is not there.
fn is_missing(socket: &Socket, verdict: &Verdict) -> bool {
    (verdict.outcome, verdict.why) == (Outcome::Closed, Why::Unknown)
        && Ending::of(socket) == Ending::TimeWait
}
