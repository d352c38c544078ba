//! The ports towards a destination, in JSON.

use std::net::IpAddr;

use serde::Serialize;
use sockleak_core::expiry::{EarlierBy, FreeRule};
use sockleak_core::observed::TwReuse;
use sockleak_core::port::{Ephemeral, Return};

use super::view::{Each, Time};
use super::words::Family;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ephemeral"))]
pub(super) struct EphemeralView<'a> {
    netns: u32,
    family: Family,
    laddr: IpAddr,
    raddr: IpAddr,
    rport: u16,
    in_use: u64,
    held: u64,
    available: u64,
    reusable: u64,
    reusable_at: Option<Time>,
    tw_reuse: TwReuse,
    range_total: u64,
    reserved: u64,
    connect_fails: Option<bool>,
    connect_fails_until: Option<Time>,
    returns: Each<'a, Return, ReturnView>,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
}

impl<'a> EphemeralView<'a> {
    pub(super) fn new(row: &'a Ephemeral) -> Self {
        Self {
            netns: row.netns,
            family: if row.raddr.is_ipv4() {
                Family::Ipv4
            } else {
                Family::Ipv6
            },
            laddr: row.laddr,
            raddr: row.raddr,
            rport: row.rport,
            in_use: row.in_use,
            held: row.held,
            available: row.available,
            reusable: row.reusable,
            reusable_at: row.reusable_at.map(Time),
            tw_reuse: row.tw_reuse,
            range_total: row.range_total,
            reserved: row.reserved,
            connect_fails: row.connect_fails,
            connect_fails_until: row.connect_fails_until.map(Time),
            returns: Each(&row.returns, ReturnView::new),
            free_at: row.free_at.map(Time),
            free_at_latest: row.free_at_latest.map(Time),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ports_returning"))]
struct ReturnView {
    free_rule: FreeRule,
    count: u64,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl ReturnView {
    fn new(group: &Return) -> Self {
        Self {
            free_rule: group.rule,
            count: group.count,
            free_at: group.at.map(Time),
            free_at_latest: group.latest.map(Time),
            earlier_by: group.rule.earlier_by(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sockleak_core::observed::State;
    use sockleak_core::testing::{evidence, local_ports, outgoing, sighting};
    use sockleak_core::verdict::examine;

    use super::*;

    #[test]
    fn a_row_has_every_key() {
        let left = outgoing(40_000).build();
        let seen = sighting(&left, State::TimeWait);
        let mut evidence = evidence(vec![left], vec![seen.clone()]);
        evidence.snapshots[0].local_ports = Some(local_ports());
        evidence.snapshots[0].same_destination = Some(vec![seen].into());
        let report = examine(evidence);
        let row = serde_json::to_value(EphemeralView::new(&report.ephemeral[0]));
        let (at, latest) = ("2025-10-09T08:54:19.800000000Z", "2025-10-09T08:54:21.848000000Z");
        let expected = json!({
            "netns": 1, "family": "ipv4", "laddr": "10.0.0.7", "raddr": "10.0.0.5", "rport": 5432,
            "in_use": 1, "held": 0, "available": 88, "reusable": 0, "reusable_at": null, "tw_reuse": "never",
            "range_total": 100, "reserved": 11, "connect_fails": false, "connect_fails_until": null,
            "returns": [{"free_rule": "timewait_timer", "count": 1, "free_at": at, "free_at_latest": latest,
                         "earlier_by": "syn"}],
            "free_at": at, "free_at_latest": latest,
        });
        assert_eq!(row.expect("it can be written"), expected);
    }
}
