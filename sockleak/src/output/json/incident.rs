//! An incident in JSON.

use serde::{Serialize, Serializer};
use sockleak_core::advice::Advice;
use sockleak_core::incident::{Incident, IncidentId, Part, Phase, Role};
use sockleak_core::port::Restart;
use sockleak_core::verdict::Summary;

use super::advice::AdviceView;
use super::record::{Kind, Record};
use super::restart::RestartView;
use super::view::{DeathView, Each, Time};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct IncidentView<'a> {
    time: Time,
    id: IncidentIdView,
    phase: Phase,
    opened: Time,
    closed: Option<Time>,
    processes: Each<'a, Part, PartView<'a>>,
    /// Processes that are counted and not named.
    unnamed: u64,
    summary: Summary,
    restart: Each<'a, Restart, RestartView<'a>>,
    advice: Each<'a, Advice, AdviceView<'a>>,
}

impl Record for IncidentView<'_> {
    const KIND: Kind = Kind::Incident;
}

impl<'a> IncidentView<'a> {
    pub(super) fn new(incident: &'a Incident) -> Self {
        Self {
            time: Time(incident.time),
            id: IncidentIdView(incident.id),
            phase: incident.phase,
            opened: Time(incident.opened),
            closed: incident.closed.map(Time),
            processes: Each(&incident.processes, PartView::new),
            unnamed: incident.unnamed,
            summary: incident.summary,
            restart: Each(&incident.restart, RestartView::new),
            advice: Each(&incident.advice, AdviceView::new),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "part"))]
struct PartView<'a> {
    pid: u32,
    comm: &'a str,
    role: Role,
    death: Option<DeathView<'a>>,
    summary: Summary,
}

impl<'a> PartView<'a> {
    fn new(part: &'a Part) -> Self {
        Self {
            pid: part.pid,
            comm: &part.comm,
            role: part.role,
            death: part.death.as_ref().map(DeathView::new),
            summary: part.summary,
        }
    }
}

/// `i` and six digits.
#[derive(Clone, Copy)]
pub(super) struct IncidentIdView(pub(super) IncidentId);

impl Serialize for IncidentIdView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
