//! A report in JSON, written socket by socket.

use std::net::IpAddr;

use serde::{Serialize, Serializer};
use sockleak_core::advice::Advice;
use sockleak_core::observed::{Lost, Process, ResetReason, State, Transition};
use sockleak_core::port::{Ephemeral, Restart};
use sockleak_core::verdict::{
    FreeRule, Holder, How, LeftWhileAlive, Outcome, Report, SocketReport, Summary, Why,
};

use super::VERSION;
use super::advice::AdviceView;
use super::ephemeral::EphemeralView;
use super::restart::RestartView;
use super::view::{DeathView, Each, Time, family, millis, protocol};
use crate::output::blind;

#[derive(Serialize)]
pub(super) struct ReportView<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    v: u32,
    time: Time,
    process: ProcessView<'a>,
    death: Option<DeathView<'a>>,
    sockets: Option<Sockets<'a>>,
    summary: Summary,
    left_while_alive: Each<'a, LeftWhileAlive, GroupView<'a>>,
    restart: Each<'a, Restart, RestartView<'a>>,
    ephemeral: Each<'a, Ephemeral, EphemeralView<'a>>,
    advice: Each<'a, Advice, AdviceView<'a>>,
    blind: Vec<String>,
    lost: Lost,
}

impl<'a> ReportView<'a> {
    pub(super) fn new(report: &'a Report, summary: bool) -> Self {
        Self {
            kind: "report",
            v: VERSION,
            time: Time(report.time),
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
            blind: blind::sentences(&report.blind),
            lost: report.lost,
        }
    }
}

#[derive(Serialize)]
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
struct SocketView<'a> {
    protocol: &'static str,
    family: &'static str,
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
    state_at_death: &'static str,
    shutdown: bool,
    unread_bytes: u32,
    unacked_bytes: u32,
    accept_queue: Option<u32>,
    reuseaddr: bool,
    reuseport: bool,
    linger: Option<u32>,
    outcome: Outcome,
    state: Option<&'static str>,
    why: Why,
    /// Why the kernel sent an RST for it; `None` if it sent none, or gives no reason.
    reset_reason: Option<&'static str>,
    holders: Each<'a, Holder, HolderView<'a>>,
    transitions: Each<'a, Transition, TransitionView>,
    free_rule: FreeRule,
    free_in_ms: Option<u64>,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
}

impl<'a> SocketView<'a> {
    fn new(report: &'a SocketReport, whole: &Report) -> Self {
        let socket = &report.socket;
        let free_in = report
            .freedom
            .at()
            .map(|at| at.duration_since(whole.time).try_into().unwrap_or_default());
        Self {
            protocol: protocol(socket.protocol),
            family: family(socket.family),
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
            state_at_death: socket.state_at_death.name(),
            shutdown: socket.shutdown,
            unread_bytes: socket.unread_bytes,
            unacked_bytes: socket.unacked_bytes,
            accept_queue: socket.accept_queue,
            reuseaddr: socket.reuseaddr,
            reuseport: socket.reuseport,
            linger: socket.linger.map(|linger| linger.seconds),
            outcome: report.outcome,
            state: report.state.map(State::name),
            why: report.why,
            reset_reason: socket
                .reset_sent
                .and_then(|sent| sent.reason)
                .map(ResetReason::name),
            holders: Each(&report.holders, HolderView::new),
            transitions: Each(&socket.transitions, TransitionView::new),
            free_rule: report.freedom.rule,
            free_in_ms: free_in.map(millis),
            free_at: report.freedom.at().map(Time),
            free_at_latest: report.freedom.latest().map(Time),
        }
    }
}

/// A TCP socket of an MPTCP socket. The process had no descriptor of it, so it has no options and no holders.
#[derive(Serialize)]
struct SubflowView<'a> {
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    cookie: Option<u64>,
    state_at_death: &'static str,
    outcome: Outcome,
    state: Option<&'static str>,
    why: Why,
    transitions: Each<'a, Transition, TransitionView>,
    free_rule: FreeRule,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
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
            state_at_death: socket.state_at_death.name(),
            outcome: report.outcome,
            state: report.state.map(State::name),
            why: report.why,
            transitions: Each(&socket.transitions, TransitionView::new),
            free_rule: report.freedom.rule,
            free_at: report.freedom.at().map(Time),
            free_at_latest: report.freedom.latest().map(Time),
        }
    }
}

#[derive(Serialize)]
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
struct TransitionView {
    time: Time,
    from: &'static str,
    to: &'static str,
}

impl TransitionView {
    fn new(transition: &Transition) -> Self {
        Self {
            time: Time(transition.time()),
            from: transition.from.name(),
            to: transition.to.name(),
        }
    }
}

#[derive(Serialize)]
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
            free_at: group.free_at.map(Time),
        }
    }
}
