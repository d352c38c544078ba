//! What a restart meets, in JSON.

use std::net::IpAddr;

use serde::Serialize;
use sockleak_core::expiry::EarlierBy;
use sockleak_core::port::{BindVerdict, Blocker, Obstacle, Restart};

use super::view::{Each, Time};
use super::words::{Flag, StateName, Verdict};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "restart"))]
pub(super) struct RestartView<'a> {
    laddr: IpAddr,
    lport: u16,
    v6only: Option<bool>,
    netns: u32,
    /// The name of the device that it is bound to.
    device: Option<&'a str>,
    /// The uid of whoever binds.
    user: Option<u32>,
    verdicts: Each<'a, BindVerdict, VerdictView<'a>>,
}

impl<'a> RestartView<'a> {
    pub(super) fn new(restart: &'a Restart) -> Self {
        let endpoint = &restart.endpoint;
        Self {
            laddr: endpoint.address,
            lport: endpoint.port,
            v6only: endpoint.v6only,
            netns: endpoint.netns,
            device: restart.device.as_deref(),
            user: restart.user,
            verdicts: Each(&restart.verdicts, VerdictView::new),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "bind_verdict"))]
struct VerdictView<'a> {
    flags: Vec<Flag>,
    bind: Verdict,
    listen: Verdict,
    blocked_by: Each<'a, Blocker, BlockerView<'a>>,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl<'a> VerdictView<'a> {
    fn new(verdict: &'a BindVerdict) -> Self {
        Self {
            flags: Flag::of(verdict.reuse),
            bind: verdict.bind.into(),
            listen: verdict.listen.into(),
            blocked_by: Each(&verdict.blocked_by, BlockerView::new),
            free_at: verdict.free_at.map(Time),
            free_at_latest: verdict.free_at_latest.map(Time),
            earlier_by: verdict.earlier_by,
        }
    }
}

/// Sockets that are in the way.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "blocker"))]
struct BlockerView<'a> {
    kind: Obstacle,
    count: u64,
    /// Declared as one that may be null, for not every socket that has a port is of TCP.
    #[cfg_attr(test, schemars(with = "Option<StateName>"))]
    state: StateName,
    pid: Option<u32>,
    comm: Option<&'a str>,
    fd: Option<u32>,
}

impl<'a> BlockerView<'a> {
    fn new(blocker: &'a Blocker) -> Self {
        let holder = blocker.holder.as_ref();
        Self {
            kind: blocker.kind,
            count: blocker.count,
            state: StateName(blocker.state),
            pid: holder.map(|holder| holder.pid),
            comm: holder.map(|holder| holder.comm.as_str()),
            fd: holder.and_then(|holder| holder.fd),
        }
    }
}
