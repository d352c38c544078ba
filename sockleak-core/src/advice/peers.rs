//! Peers that do not answer, and peers that do not read.

use super::{Fact, Facts, Grounds, given, last_free};
use crate::expiry::FreeRule;
use crate::verdict::Why;

pub(super) fn unreachable_peer(facts: &Facts<'_>) -> Option<Grounds> {
    let silent = || {
        let is_left = |rule| rule == FreeRule::Retransmits;
        facts
            .sockets()
            .filter(move |report| report.why == Why::PeerUnreachable && is_left(report.freedom.rule))
    };
    let count = silent().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("free_at", last_free(silent().map(|report| &report.freedom))),
    ];
    given(count, evidence)
}

pub(super) fn zero_window_orphan(facts: &Facts<'_>) -> Option<Grounds> {
    let full = || {
        facts
            .leftovers()
            .filter(|left| left.freedom.rule == FreeRule::Persist)
    };
    let bytes = full().map(|left| u64::from(left.socket.unacked_bytes)).sum();
    let count = full().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("unsent_bytes", Fact::Count(bytes)),
    ];
    given(count, evidence)
}
