//! What happened to a family of processes: one incident from its first death until it is over.

mod families;
mod id;
mod state;
mod totals;

use std::collections::HashMap;
use std::iter::successors;

use jiff::{SignedDuration, Timestamp};

pub use self::id::IncidentId;
pub use self::state::{Incident, Part, Phase, Role};

use self::families::Families;
use self::totals::Totals;
use crate::observed::{ProcessChange, ProcessEvent, Watching};
use crate::verdict::Report;

/// An incident is over when so much time has passed without another death.
const QUIET: SignedDuration = SignedDuration::from_secs(10);
/// By how much another report of the family may come later after its death than those until now.
const LATE: SignedDuration = SignedDuration::from_secs(2);
/// While the main process is dead and others of the family live, it stays open for so long after that death.
const WITHOUT_MAIN: SignedDuration = SignedDuration::from_secs(90);

/// Generations that are told apart in what was there before the trace.
const DEPTH: usize = 64;

/// The families that are watched, and their incidents.
#[derive(Default)]
pub struct Incidents {
    families: Families,
    open: Vec<Open>,
}

/// An incident that may go on.
struct Open {
    id: IncidentId,
    /// The PID of the family's main process.
    main: u32,
    opened: Timestamp,
    last_death: Timestamp,
    /// How long after a death its report came, at the longest.
    delay: SignedDuration,
    /// When the main process died.
    main_died: Option<Timestamp>,
    totals: Totals,
}

impl Incidents {
    /// These are watched from the beginning.
    pub fn watching(&mut self, watching: &Watching) {
        let parents: HashMap<u32, u32> = watching
            .processes
            .iter()
            .map(|process| (process.pid, process.parent))
            .collect();
        let parent = |pid: &u32| parents.get(pid).copied();
        let mut processes: Vec<_> = watching.processes.iter().collect();
        // Parents first: one may have a larger PID than its child.
        processes.sort_by_cached_key(|process| successors(parent(&process.pid), parent).take(DEPTH).count());
        for process in processes {
            self.families.add(process.pid, process.parent);
        }
    }

    /// A watched process changed. What its end closes.
    pub fn changed(&mut self, event: &ProcessEvent) -> Option<Incident> {
        match event.change {
            ProcessChange::Forked { child } => self.families.add(child, event.pid),
            ProcessChange::Ended => {
                let main = self.families.main_of(event.pid);
                self.families.remove(event.pid);
                return self.close_if_empty(main, event.time);
            }
            ProcessChange::Executed => {}
        }
        None
    }

    /// Adds a death to the incident of its family, which it may open, and returns that as it stands then; before it the one
    /// that was over by that death.
    pub fn died(&mut self, report: &mut Report) -> Vec<Incident> {
        let pid = report.process.pid;
        let died = report.death.as_ref().map_or(report.time, |death| death.time);
        let main = self.families.main_of(pid);
        let families = &self.families;
        let is_over = |open: &mut Open| open.main == main && open.ends(families) <= died;
        let over: Vec<Open> = self.open.extract_if(.., is_over).collect();
        let mut incidents: Vec<Incident> = over.into_iter().map(|open| open.over(families)).collect();
        let place = self.open.iter().position(|open| open.main == main);
        let place = place.unwrap_or_else(|| {
            self.open.push(Open::new(main, pid, died));
            self.open.len() - 1
        });
        let open = &mut self.open[place];
        report.incident = Some(open.id);
        incidents.push(open.add(report, died, families));
        incidents
    }

    /// The process is dead, and everything that there was to say of it is said. What that closes.
    pub fn ended(&mut self, pid: u32, time: Timestamp) -> Option<Incident> {
        let main = self.families.main_of(pid);
        self.families.remove(pid);
        self.close_if_empty(main, time)
    }

    /// Closes those that are over by then.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Incident> {
        let families = &self.families;
        let is_over = |open: &mut Open| open.closes(families) <= now;
        let over = self.open.extract_if(.., is_over);
        over.map(|open| open.over(families)).collect()
    }

    /// Closes all of them.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Incident> {
        self.open.drain(..).map(|open| open.close(now)).collect()
    }

    /// When the next one is over, if nothing more happens.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.open.iter().map(|open| open.closes(&self.families)).min()
    }

    fn close_if_empty(&mut self, main: u32, time: Timestamp) -> Option<Incident> {
        if self.families.has_members(main) {
            return None;
        }
        let place = self.open.iter().position(|open| open.main == main)?;
        Some(self.open.swap_remove(place).close(time))
    }
}

impl Open {
    fn new(main: u32, pid: u32, died: Timestamp) -> Self {
        Self {
            id: IncidentId::of(pid, died),
            main,
            opened: died,
            last_death: died,
            delay: SignedDuration::ZERO,
            main_died: None,
            totals: Totals::default(),
        }
    }

    fn add(&mut self, report: &Report, died: Timestamp, families: &Families) -> Incident {
        self.last_death = self.last_death.max(died);
        self.delay = self.delay.max(report.time.duration_since(died));
        let is_main = report.process.pid == self.main;
        if is_main {
            self.main_died = Some(died);
        }
        let part = Part {
            pid: report.process.pid,
            comm: report.process.comm.clone(),
            role: if is_main { Role::Main } else { Role::Child },
            death: report.death.clone(),
            summary: report.summary,
        };
        let phase = if self.totals.is_empty() {
            Phase::Opened
        } else {
            Phase::Changed
        };
        let alone = self.totals.is_empty() && families.is_alone(report.process.pid);
        self.totals.add(report, part.clone(), alone);
        Incident {
            id: self.id,
            phase,
            time: report.time,
            opened: self.opened,
            closed: None,
            processes: vec![part],
            unnamed: 0,
            summary: self.totals.summary(),
            restart: report.restart.clone(),
            advice: report.advice.clone(),
        }
    }

    /// When it is over, if nothing more happens.
    fn ends(&self, families: &Families) -> Timestamp {
        // A recording may have a death at the end of all times.
        let after = |death: Timestamp, span| death.saturating_add(span).unwrap_or(Timestamp::MAX);
        let quiet = after(self.last_death, QUIET);
        match self.main_died {
            Some(died) if families.has_members(self.main) => quiet.max(after(died, WITHOUT_MAIN)),
            _ => quiet,
        }
    }

    /// From when on no death of before its end is to come.
    fn closes(&self, families: &Families) -> Timestamp {
        let late = self.delay.saturating_add(LATE);
        self.ends(families).saturating_add(late).unwrap_or(Timestamp::MAX)
    }

    /// It was over when nothing happened any more.
    fn over(self, families: &Families) -> Incident {
        let end = self.ends(families);
        self.close(end)
    }

    fn close(self, time: Timestamp) -> Incident {
        let summary = self.totals.summary();
        let (processes, unnamed, restart, advice) = self.totals.take();
        Incident {
            id: self.id,
            phase: Phase::Closed,
            time,
            opened: self.opened,
            closed: Some(time),
            processes,
            unnamed,
            summary,
            restart,
            advice,
        }
    }
}

#[cfg(test)]
mod tests;
