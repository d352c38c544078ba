//! Who has a port, in JSON.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sockleak_core::expiry::{EarlierBy, FreeRule};
use sockleak_core::observed::BlindSpot;
use sockleak_core::port::{PortHolder, PortReport, PortSocket, Restart, Reuse};
use sockleak_core::verdict::How;

use super::blind::BlindView;
use super::record::{Kind, Record};
use super::restart::RestartView;
use super::view::{Each, Time, millis};
use super::words::{Family, Protocol, StateName};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PortView<'a> {
    time: Time,
    port: u16,
    /// The namespace that the caller is in.
    netns: u32,
    #[cfg_attr(test, schemars(with = "Vec<SocketView>"))]
    sockets: Sockets<'a>,
    restart: Each<'a, Restart, RestartView<'a>>,
    blind: Each<'a, BlindSpot, BlindView<'a>>,
}

impl Record for PortView<'_> {
    const KIND: Kind = Kind::Port;
}

impl<'a> PortView<'a> {
    pub(super) fn new(report: &'a PortReport) -> Self {
        Self {
            time: Time(report.time),
            port: report.port,
            netns: report.own,
            sockets: Sockets(report),
            restart: Each(&report.restart, RestartView::new),
            blind: Each(&report.blind, BlindView::new),
        }
    }
}

struct Sockets<'a>(&'a PortReport);

impl Serialize for Sockets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let now = self.0.time;
        serializer.collect_seq(self.0.sockets.iter().map(|socket| SocketView::new(socket, now)))
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "port_socket"))]
struct SocketView<'a> {
    protocol: Protocol,
    family: Family,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    netns: u32,
    /// The name of the device that it is bound to.
    device: Option<&'a str>,
    cookie: Option<u64>,
    inode: Option<u64>,
    state: StateName,
    /// `None` where the options could not be read.
    reuseaddr: Option<bool>,
    reuseport: Option<bool>,
    v6only: Option<bool>,
    holders: Each<'a, PortHolder, HolderView<'a>>,
    free_rule: FreeRule,
    free_in_ms: Option<u64>,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl<'a> SocketView<'a> {
    fn new(socket: &'a PortSocket, now: Timestamp) -> Self {
        let owner = &socket.occupant.owner;
        let freedom = &socket.occupant.freedom;
        let free_in = freedom
            .at()
            .map(|at| at.duration_since(now).try_into().unwrap_or_default());
        let option = |which: fn(&Reuse) -> bool| owner.reuse.as_ref().map(which);
        Self {
            protocol: owner.protocol.into(),
            family: owner.family.into(),
            laddr: owner.local.ip(),
            lport: owner.local.port(),
            raddr: owner.remote.map(|remote| remote.ip()),
            rport: owner.remote.map(|remote| remote.port()),
            netns: owner.netns,
            device: socket.device.as_deref(),
            cookie: owner.cookie,
            inode: (owner.inode != 0).then_some(owner.inode),
            state: StateName(owner.state),
            reuseaddr: option(|reuse| reuse.addr),
            reuseport: option(|reuse| reuse.port),
            v6only: owner.v6only,
            holders: Each(&socket.holders, HolderView::new),
            free_rule: freedom.rule,
            free_in_ms: free_in.map(millis),
            free_at: freedom.at().map(Time),
            free_at_latest: freedom.latest().map(Time),
            earlier_by: freedom.rule.earlier_by(),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "port_holder"))]
struct HolderView<'a> {
    pid: u32,
    comm: &'a str,
    fd: u32,
    how: Option<How>,
    dumping_core: bool,
}

impl<'a> HolderView<'a> {
    fn new(holder: &'a PortHolder) -> Self {
        Self {
            pid: holder.pid,
            comm: &holder.comm,
            fd: holder.fd,
            how: holder.how,
            dumping_core: holder.dumping_core,
        }
    }
}
