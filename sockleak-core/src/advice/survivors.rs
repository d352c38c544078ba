//! A listener that outlives its process, or that lives for longer than its process works.

use std::collections::HashSet;
use std::time::Duration;

use super::{Fact, Facts, Grounds, given, local_ports};
use crate::verdict::{How, Outcome, SocketReport};

/// systemd starts a service again after this time (RestartSec=); a shorter dump is over by then.
const RESTART: Duration = Duration::from_millis(100);

fn held(report: &&SocketReport) -> bool {
    report.outcome == Outcome::Held
}

pub(super) fn inherited_listener(facts: &Facts<'_>) -> Option<Grounds> {
    let inherited = || {
        facts.listeners().filter(held).filter(|report| {
            let mut hows = report.holders.iter().map(|holder| holder.how);
            hows.any(|how| how == Some(How::Inherited))
        })
    };
    let holders: HashSet<u32> = inherited()
        .flat_map(|report| &report.holders)
        .map(|holder| holder.pid)
        .collect();
    let count = inherited().count() as u64;
    let evidence = vec![
        ("listeners", Fact::Count(count)),
        ("holders", Fact::Count(holders.len() as u64)),
        (
            "ports",
            local_ports(inherited().map(|report| report.socket.as_ref())),
        ),
    ];
    given(count, evidence)
}

/// Listeners of others on the same port may be the service again, already restarted: those are not taken for survivors.
pub(super) fn reuseport_survivor(facts: &Facts<'_>) -> Option<Grounds> {
    let survivors = || {
        facts
            .listeners()
            .filter(held)
            .filter(|report| report.socket.reuseport)
    };
    let count = survivors().count() as u64;
    let evidence = vec![
        ("listeners", Fact::Count(count)),
        (
            "ports",
            local_ports(survivors().map(|report| report.socket.as_ref())),
        ),
    ];
    given(count, evidence)
}

pub(super) fn core_dump_held_port(facts: &Facts<'_>) -> Option<Grounds> {
    let death = facts.report.death.as_ref()?;
    let dump = death.core_dump.filter(|dump| *dump >= RESTART)?;
    let count = facts.listeners().count() as u64;
    let evidence = vec![
        ("core_dump_ms", Fact::Lasted(dump)),
        ("listeners", Fact::Count(count)),
        (
            "ports",
            local_ports(facts.listeners().map(|report| report.socket.as_ref())),
        ),
    ];
    given(count, evidence)
}
