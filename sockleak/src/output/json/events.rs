//! What happens while a trace runs, in JSON.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use sockleak_core::expiry::{EarlierBy, FreeRule};
use sockleak_core::leftover::Freed;
use sockleak_core::observed::{Loss, ProcessChange, ProcessEvent, SocketTransition, Watching};
use sockleak_core::verdict::{Leftover, Outcome, Report};

use super::incident::IncidentIdView;
use super::record::{Kind, Record};
use super::view::{DeathView, Time};
use super::words::{Event, StateName};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct WatchView<'a> {
    time: Time,
    pids: Vec<u32>,
    /// `None` where they may not be looked at.
    listeners: Option<u64>,
    connections: Option<u64>,
    kernel: &'a str,
    hooks: &'a [String],
}

impl Record for WatchView<'_> {
    const KIND: Kind = Kind::Watch;
}

impl<'a> WatchView<'a> {
    pub(super) fn new(watch: &'a Watching) -> Self {
        let targets = watch.processes.iter().filter(|process| process.target);
        Self {
            time: Time(watch.time),
            pids: targets.map(|process| process.pid).collect(),
            listeners: watch.sockets.map(|open| open.listeners),
            connections: watch.sockets.map(|open| open.connections),
            kernel: &watch.kernel,
            hooks: &watch.hooks,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ProcessEventView<'a> {
    time: Time,
    event: Event,
    pid: u32,
    comm: &'a str,
    child: Option<u32>,
}

impl Record for ProcessEventView<'_> {
    const KIND: Kind = Kind::Process;
}

impl<'a> ProcessEventView<'a> {
    /// `None` for what is told by nothing else than the end of an incident.
    pub(super) fn new(event: &'a ProcessEvent) -> Option<Self> {
        let (what, child) = match event.change {
            ProcessChange::Forked { child } => (Event::Fork, Some(child)),
            ProcessChange::Executed => (Event::Exec, None),
            ProcessChange::Ended => return None,
        };
        Some(Self {
            time: Time(event.time),
            event: what,
            pid: event.pid,
            comm: &event.comm,
            child,
        })
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TransitionEventView<'a> {
    time: Time,
    pid: u32,
    comm: &'a str,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    from: StateName,
    to: StateName,
}

impl Record for TransitionEventView<'_> {
    const KIND: Kind = Kind::Transition;
}

impl<'a> TransitionEventView<'a> {
    pub(super) fn new(event: &'a SocketTransition) -> Self {
        Self {
            time: Time(event.time),
            pid: event.pid,
            comm: &event.comm,
            laddr: event.local.ip(),
            lport: event.local.port(),
            raddr: event.remote.map(|remote| remote.ip()),
            rport: event.remote.map(|remote| remote.port()),
            from: StateName(event.from),
            to: StateName(event.to),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DeathEventView<'a> {
    time: Time,
    incident: Option<IncidentIdView>,
    pid: u32,
    comm: &'a str,
    death: DeathView<'a>,
}

impl Record for DeathEventView<'_> {
    const KIND: Kind = Kind::Death;
}

impl<'a> DeathEventView<'a> {
    /// `None` where nobody saw how it died.
    pub(super) fn new(report: &'a Report) -> Option<Self> {
        let death = report.death.as_ref()?;
        Some(Self {
            time: Time(death.time),
            incident: report.incident.map(IncidentIdView),
            pid: report.process.pid,
            comm: &report.process.comm,
            death: DeathView::new(death),
        })
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MovedView {
    time: Time,
    pid: u32,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    outcome: Outcome,
    state: StateName,
    free_rule: FreeRule,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
    earlier_by: Option<EarlierBy>,
}

impl Record for MovedView {
    const KIND: Kind = Kind::Moved;
}

impl MovedView {
    pub(super) fn new(time: Timestamp, leftover: &Leftover) -> Self {
        Self {
            time: Time(time),
            pid: leftover.pid,
            laddr: leftover.local.ip(),
            lport: leftover.local.port(),
            raddr: leftover.remote.map(|remote| remote.ip()),
            rport: leftover.remote.map(|remote| remote.port()),
            outcome: leftover.outcome(),
            state: StateName(leftover.state),
            free_rule: leftover.freedom.rule,
            free_at: leftover.freedom.at().map(Time),
            free_at_latest: leftover.freedom.latest().map(Time),
            earlier_by: leftover.freedom.rule.earlier_by(),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct FreedView {
    pid: u32,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    not_before: Time,
    time: Time,
    free_rule: FreeRule,
}

impl Record for FreedView {
    const KIND: Kind = Kind::Freed;
}

impl FreedView {
    pub(super) fn new(freed: &Freed) -> Self {
        let leftover = &freed.leftover;
        Self {
            pid: leftover.pid,
            laddr: leftover.local.ip(),
            lport: leftover.local.port(),
            raddr: leftover.remote.map(|remote| remote.ip()),
            rport: leftover.remote.map(|remote| remote.port()),
            not_before: Time(freed.not_before),
            time: Time(freed.time),
            free_rule: leftover.freedom.rule,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LostView {
    time: Time,
    events: u64,
    processes: u64,
}

impl Record for LostView {
    const KIND: Kind = Kind::Lost;
}

impl LostView {
    pub(super) fn new(loss: &Loss) -> Self {
        Self {
            time: Time(loss.time),
            events: loss.events,
            processes: loss.processes,
        }
    }
}
