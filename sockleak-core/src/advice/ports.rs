//! Ports that outgoing connections use up, and ports that they may take from a service.

use super::{Fact, Facts, Grounds, given, last_free, local_ports};
use crate::expiry::FreeRule;
use crate::expiry::Freedom;
use crate::observed::Socket;
use crate::port::Ephemeral;
use crate::verdict::Outcome;

/// Fewer closed connections than these come from ordinary work.
const MANY: u64 = 100;

fn runs_out(row: &Ephemeral) -> bool {
    let usable = row.range_total - row.reserved;
    row.connect_fails != Some(false) || row.available * 10 < usable
}

pub(super) fn ephemeral_exhaustion(facts: &Facts<'_>) -> Option<Grounds> {
    let scarce: Vec<&Ephemeral> = facts
        .report
        .ephemeral
        .iter()
        .filter(|row| runs_out(row))
        .collect();
    let free_at: Vec<Freedom> = scarce
        .iter()
        .map(|row| Freedom::new(FreeRule::Unknown, row.free_at, row.free_at_latest))
        .collect();
    let count = scarce.len() as u64;
    let evidence = vec![
        ("destinations", Fact::Count(count)),
        (
            "leftovers",
            Fact::Count(scarce.iter().map(|row| row.in_use).sum()),
        ),
        (
            "available_ports",
            Fact::Count(scarce.iter().map(|row| row.available).min().unwrap_or_default()),
        ),
        ("free_at", last_free(free_at.iter())),
    ];
    given(count, evidence)
}

pub(super) fn time_wait_churn(facts: &Facts<'_>) -> Option<Grounds> {
    let waits = |outcome| matches!(outcome, Outcome::TimeWait | Outcome::FinWait2);
    let closed = || {
        facts
            .live
            .iter()
            .filter(|(socket, left)| waits(left.outcome()) && !facts.is_accepted(socket))
    };
    let count = closed().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("free_at", last_free(closed().map(|(_, left)| &left.freedom))),
    ];
    given(count, evidence).filter(|_| count >= MANY)
}

pub(super) fn fixed_port_in_ephemeral_range(facts: &Facts<'_>) -> Option<Grounds> {
    let may_be_taken = |socket: &Socket| {
        let mut looks = facts.snapshots.iter().filter(|look| look.netns == socket.netns);
        let rules = looks.find_map(|look| look.local_ports.as_ref());
        rules.is_some_and(|rules| rules.has(socket.local.port()))
    };
    let exposed = || facts.every_listener().filter(|socket| may_be_taken(socket));
    let count = exposed().count() as u64;
    let evidence = vec![
        ("listeners", Fact::Count(count)),
        ("ports", local_ports(exposed())),
    ];
    given(count, evidence)
}
