//! What `sockleak free` destroys, or would: one line for each socket.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use sockleak_core::leftover::{Action, Danger, Reason, Removal};
use sockleak_core::verdict::Holder;

use super::record::{Kind, Record};
use super::report::HolderView;
use super::view::{Each, Time};
use super::words::StateName;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RemovalView<'a> {
    time: Time,
    laddr: IpAddr,
    /// `None` for what a report names without its port and no look shows.
    lport: Option<u16>,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    netns: u32,
    cookie: Option<u64>,
    state: Option<StateName>,
    action: Action,
    reason: Option<Reason>,
    hazard: Option<Danger>,
    lost_bytes: Option<u32>,
    holders: Each<'a, Holder, HolderView<'a>>,
    port_holders: Each<'a, Holder, HolderView<'a>>,
}

impl Record for RemovalView<'_> {
    const KIND: Kind = Kind::Free;
}

impl<'a> RemovalView<'a> {
    pub(super) fn new(time: Timestamp, removal: &'a Removal) -> Self {
        Self {
            time: Time(time),
            laddr: removal.local.ip(),
            lport: Some(removal.local.port()).filter(|port| *port != 0),
            raddr: removal.remote.map(|remote| remote.ip()),
            rport: removal
                .remote
                .map(|remote| remote.port())
                .filter(|port| *port != 0),
            netns: removal.netns,
            cookie: removal.cookie,
            state: removal.state.map(StateName),
            action: removal.action,
            reason: removal.reason,
            hazard: removal.hazard.map(|hazard| hazard.danger),
            lost_bytes: removal.hazard.map(|hazard| hazard.lost_bytes),
            holders: Each(&removal.holders, HolderView::new),
            port_holders: Each(&removal.port_holders, HolderView::new),
        }
    }
}
