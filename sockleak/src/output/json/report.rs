//! A report in JSON, written socket by socket.

use std::net::IpAddr;

use serde::{Serialize, Serializer};
use sockleak_core::advice::Advice;
use sockleak_core::expiry::{EarlierBy, FreeRule};
use sockleak_core::observed::{BlindSpot, Lost, Process, Transition};
use sockleak_core::port::{Ephemeral, Restart};
use sockleak_core::verdict::{Holder, How, LeftWhileAlive, Outcome, Report, SocketReport, Summary, Why};

use super::advice::AdviceView;
use super::blind::BlindView;
use super::ephemeral::EphemeralView;
use super::incident::IncidentIdView;
use super::record::{Kind, Record};
use super::restart::RestartView;
use super::view::{DeathView, Each, Time, millis};
use super::words::{Family, Protocol, Reset, StateName};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ReportView<'a> {
    time: Time,
    incident: Option<IncidentIdView>,
    process: ProcessView<'a>,
    death: Option<DeathView<'a>>,
    #[cfg_attr(test, schemars(with = "Option<Vec<SocketView>>"))]
    sockets: Option<Sockets<'a>>,
    summary: Summary,
    left_while_alive: Each<'a, LeftWhileAlive, GroupView<'a>>,
    restart: Each<'a, Restart, RestartView<'a>>,
    ephemeral: Each<'a, Ephemeral, EphemeralView<'a>>,
    advice: Each<'a, Advice, AdviceView<'a>>,
    blind: Each<'a, BlindSpot, BlindView<'a>>,
    lost: Lost,
}

impl Record for ReportView<'_> {
    const KIND: Kind = Kind::Report;
}

impl<'a> ReportView<'a> {
    pub(super) fn new(report: &'a Report, summary: bool) -> Self {
        Self {
            time: Time(report.time),
            incident: report.incident.map(IncidentIdView),
            process: ProcessView::new(&report.process),
            death: report.death.as_ref().map(DeathView::new),
            sockets: (!summary).then_some(Sockets(report)),
            summary: report.summary,
            left_while_alive: Each(
                &report.left_while_alive,
                if summary {
                    GroupView::summed
                } else {
                    GroupView::new
                },
            ),
            restart: Each(&report.restart, RestartView::new),
            ephemeral: Each(&report.ephemeral, EphemeralView::new),
            advice: Each(&report.advice, AdviceView::new),
            blind: Each(&report.blind, BlindView::new),
            lost: report.lost,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "report_process"))]
struct ProcessView<'a> {
    pid: u32,
    ns_pid: Option<u32>,
    comm: &'a str,
    exe: Option<&'a str>,
    cgroup: Option<&'a str>,
    started: Option<Time>,
}

impl<'a> ProcessView<'a> {
    fn new(process: &'a Process) -> Self {
        Self {
            pid: process.pid,
            ns_pid: process.ns_pid,
            comm: &process.comm,
            exe: process.exe.as_deref(),
            cgroup: process.cgroup.as_deref(),
            started: process.started.map(Time),
        }
    }
}

struct Sockets<'a>(&'a Report);

impl Serialize for Sockets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .sockets
                .iter()
                .map(|socket| SocketView::new(socket, self.0)),
        )
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "socket"))]
struct SocketView<'a> {
    protocol: Protocol,
    family: Family,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    netns: u32,
    cookie: Option<u64>,
    fds: &'a [u32],
    inode: Option<u64>,
    /// `None` for TCP, and where they could not be looked at.
    subflows: Option<Each<'a, SocketReport, SubflowView<'a>>>,
    state_at_death: StateName,
    shutdown: bool,
    unread_bytes: u32,
    unacked_bytes: u32,
    accept_queue: Option<u32>,
    reuseaddr: bool,
    reuseport: bool,
    linger: Option<u32>,
    outcome: Outcome,
    state: Option<StateName>,
    why: Why,
    /// Why the kernel sent an RST for it; `None` if it sent none, or gives no reason.
    reset_reason: Option<Reset>,
    holders: Each<'a, Holder, HolderView<'a>>,
    transitions: Each<'a, Transition, TransitionView>,
    free_rule: FreeRule,
    free_in_ms: Option<u64>,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl<'a> SocketView<'a> {
    fn new(report: &'a SocketReport, whole: &Report) -> Self {
        let socket = &report.socket;
        let free_in = report
            .freedom
            .at()
            .map(|at| at.duration_since(whole.time).try_into().unwrap_or_default());
        Self {
            protocol: socket.protocol.into(),
            family: socket.family.into(),
            laddr: socket.local.ip(),
            lport: socket.local.port(),
            raddr: socket.remote.map(|remote| remote.ip()),
            rport: socket.remote.map(|remote| remote.port()),
            netns: socket.netns,
            cookie: socket.cookie.or(report.seen_cookie),
            fds: &socket.fds,
            inode: socket.inode,
            subflows: (socket.subflows_complete || !report.subflows.is_empty())
                .then_some(Each(&report.subflows, SubflowView::new)),
            state_at_death: StateName(socket.state_at_death),
            shutdown: socket.shutdown,
            unread_bytes: socket.unread_bytes,
            unacked_bytes: socket.unacked_bytes,
            accept_queue: socket.accept_queue,
            reuseaddr: socket.reuseaddr,
            reuseport: socket.reuseport,
            linger: socket.linger.map(|linger| linger.seconds),
            outcome: report.outcome,
            state: report.state.map(StateName),
            why: report.why,
            reset_reason: socket.reset_sent.and_then(|sent| sent.reason).map(Reset::from),
            holders: Each(&report.holders, HolderView::new),
            transitions: Each(&socket.transitions, TransitionView::new),
            free_rule: report.freedom.rule,
            free_in_ms: free_in.map(millis),
            free_at: report.freedom.at().map(Time),
            free_at_latest: report.freedom.latest().map(Time),
            earlier_by: report.freedom.rule.earlier_by(),
        }
    }
}

/// A TCP socket of an MPTCP socket. The process had no descriptor of it, so it has no options and no holders.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "subflow"))]
struct SubflowView<'a> {
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    cookie: Option<u64>,
    state_at_death: StateName,
    outcome: Outcome,
    state: Option<StateName>,
    why: Why,
    transitions: Each<'a, Transition, TransitionView>,
    free_rule: FreeRule,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl<'a> SubflowView<'a> {
    fn new(report: &'a SocketReport) -> Self {
        let socket = &report.socket;
        Self {
            laddr: socket.local.ip(),
            lport: socket.local.port(),
            raddr: socket.remote.map(|remote| remote.ip()),
            rport: socket.remote.map(|remote| remote.port()),
            cookie: socket.cookie.or(report.seen_cookie),
            state_at_death: StateName(socket.state_at_death),
            outcome: report.outcome,
            state: report.state.map(StateName),
            why: report.why,
            transitions: Each(&socket.transitions, TransitionView::new),
            free_rule: report.freedom.rule,
            free_at: report.freedom.at().map(Time),
            free_at_latest: report.freedom.latest().map(Time),
            earlier_by: report.freedom.rule.earlier_by(),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "holder"))]
pub(super) struct HolderView<'a> {
    pid: u32,
    comm: &'a str,
    fd: u32,
    how: Option<How>,
}

impl<'a> HolderView<'a> {
    pub(super) fn new(holder: &'a Holder) -> Self {
        Self {
            pid: holder.pid,
            comm: &holder.comm,
            fd: holder.fd,
            how: holder.how,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "state_change"))]
struct TransitionView {
    time: Time,
    from: StateName,
    to: StateName,
}

impl TransitionView {
    fn new(transition: &Transition) -> Self {
        Self {
            time: Time(transition.time()),
            from: StateName(transition.from),
            to: StateName(transition.to),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "left_while_alive"))]
struct GroupView<'a> {
    laddr: IpAddr,
    lport: Option<u16>,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    netns: u32,
    outcome: Outcome,
    count: u64,
    /// `None` where the single sockets are left out.
    cookies: Option<&'a [u64]>,
    last_closed: Time,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl<'a> GroupView<'a> {
    fn new(group: &'a LeftWhileAlive) -> Self {
        Self {
            cookies: Some(&group.cookies),
            ..Self::summed(group)
        }
    }

    fn summed(group: &'a LeftWhileAlive) -> Self {
        Self {
            laddr: group.laddr,
            lport: group.lport,
            raddr: group.raddr,
            rport: group.rport,
            netns: group.netns,
            outcome: group.outcome,
            count: group.count,
            cookies: None,
            last_closed: Time(group.last_closed),
            free_at: group.last_free.at.map(Time),
            free_at_latest: group.last_free.latest.map(Time),
            earlier_by: group.last_free.earlier_by,
        }
    }
}
