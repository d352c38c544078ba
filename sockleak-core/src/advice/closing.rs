//! How connections end: who closes first, and with what unread or unsent.

use super::{Fact, Facts, Grounds, given, last_free};
use crate::observed::Cause;
use crate::verdict::{Outcome, Why};

/// SIGHUP, SIGINT and SIGTERM: a process can prepare for its end by these.
const ANNOUNCED: [u8; 3] = [1, 2, 15];

/// A crash gives no occasion to close in a better order. What the process closed or shut down itself does, and so
/// does an end that it chose or that was announced to it.
pub(super) fn closing_side(facts: &Facts<'_>) -> Option<Grounds> {
    let announced = facts
        .report
        .death
        .as_ref()
        .is_some_and(|death| match death.cause {
            Cause::Exit { .. } => true,
            Cause::Signal { signal, .. } => ANNOUNCED.contains(&signal),
        });
    let waits = |outcome| matches!(outcome, Outcome::TimeWait | Outcome::FinWait2);
    let at_the_end = facts.sockets().filter(|report| match report.why {
        Why::ShutdownBefore => true,
        Why::ClosedByKernel => announced,
        _ => false,
    });
    let at_the_end = at_the_end.map(|report| (report.socket.as_ref(), report.outcome, &report.freedom));
    let before = facts
        .live
        .iter()
        .map(|(socket, left)| (*socket, left.outcome(), &left.freedom));
    let closed: Vec<_> = at_the_end
        .chain(before)
        .filter(|(socket, outcome, _)| waits(*outcome) && facts.is_accepted(socket))
        .collect();
    let count = closed.len() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        (
            "free_at",
            last_free(closed.iter().map(|(_, _, freedom)| *freedom)),
        ),
    ];
    given(count, evidence)
}

pub(super) fn unread_data_reset(facts: &Facts<'_>) -> Option<Grounds> {
    let unread = || facts.sockets().filter(|report| report.why == Why::UnreadData);
    let bytes = unread().map(|report| u64::from(report.socket.unread_bytes)).sum();
    let count = unread().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("unread_bytes", Fact::Count(bytes)),
    ];
    given(count, evidence)
}

pub(super) fn linger_zero(facts: &Facts<'_>) -> Option<Grounds> {
    let used = || facts.sockets().filter(|report| report.why == Why::LingerZero);
    let bytes = used().map(|report| u64::from(report.socket.unacked_bytes)).sum();
    let count = used().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("unsent_bytes", Fact::Count(bytes)),
    ];
    given(count, evidence)
}
