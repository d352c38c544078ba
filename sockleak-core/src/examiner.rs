//! From observations to events, by today's rules: the same for a trace and for a recording of one.

use std::sync::Arc;

use jiff::Timestamp;

use crate::event::Event;
use crate::incident::Incidents;
use crate::leftover::{Countdown, LookedAt, leftovers};
use crate::observed::{Cause, Death, Evidence, Observation, ProcessChange, Snapshot};
use crate::verdict::{Report, examine};

/// What is wanted of the reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Only of deaths by a signal or with a non-zero status.
    pub only_failed: bool,
    /// What is left is followed until it is free.
    pub countdown: bool,
}

/// Makes events of observations. It reads no clock: time passes by what it is told.
pub struct Examiner {
    wanted: Wanted,
    incidents: Incidents,
    countdown: Countdown,
}

impl Examiner {
    /// Begins before the first observation.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            incidents: Incidents::default(),
            countdown: Countdown::new(0),
        }
    }

    /// What an observation means, and what the time until then has brought.
    pub fn take(&mut self, observation: Observation) -> Vec<Event> {
        let mut events = self.advance(observation.time());
        match observation {
            Observation::Began(watching) => {
                self.countdown = Countdown::new(watching.hz);
                self.incidents.watching(&watching);
                events.push(Event::Watching(watching));
            }
            Observation::Process(event) => {
                let closed = self.incidents.changed(&event);
                if event.change != ProcessChange::Ended {
                    events.push(Event::Process(event));
                }
                events.extend(closed.map(Event::Incident));
            }
            Observation::Transition(transition) => events.push(Event::Transition(transition)),
            Observation::Dead(evidence) => self.died(*evidence, &mut events),
            Observation::Living(evidence) => self.lives(*evidence, &mut events),
            Observation::Looked(snapshot) => self.looked(&snapshot, &mut events),
            Observation::Lost(loss) => events.push(Event::Lost(loss)),
            Observation::Ended { time } => {
                events.extend(self.incidents.finish(time).into_iter().map(Event::Incident));
            }
        }
        events
    }

    /// What the time until `now` brings by itself.
    pub fn advance(&mut self, now: Timestamp) -> Vec<Event> {
        self.incidents
            .advance(now)
            .into_iter()
            .map(Event::Incident)
            .collect()
    }

    /// When [`Examiner::advance`] has something to say, if nothing is observed before.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.incidents.due()
    }

    /// What is left of what was reported, and has to be looked at until it is free.
    #[must_use]
    pub const fn countdown(&self) -> &Countdown {
        &self.countdown
    }

    fn died(&mut self, evidence: Evidence, events: &mut Vec<Event>) {
        let (pid, time) = (evidence.process.pid, evidence.time);
        let looks: Vec<LookedAt> = evidence.snapshots.iter().map(LookedAt::of).collect();
        let mut report = examine(evidence);
        if self.is_wanted(&report) {
            events.extend(self.incidents.died(&mut report).into_iter().map(Event::Incident));
            let report = Arc::new(report);
            if report.death.is_some() {
                events.push(Event::Death(Arc::clone(&report)));
            }
            events.push(Event::Report(Arc::clone(&report)));
            self.follow(&report, &looks);
        }
        let closed = self.incidents.ended(pid, time);
        events.extend(closed.map(Event::Incident));
    }

    fn lives(&mut self, evidence: Evidence, events: &mut Vec<Event>) {
        let looks: Vec<LookedAt> = evidence.snapshots.iter().map(LookedAt::of).collect();
        let report = examine(evidence);
        if self.is_wanted(&report) {
            let report = Arc::new(report);
            events.push(Event::Report(Arc::clone(&report)));
            self.follow(&report, &looks);
        }
    }

    /// A target always has a report; others only if they left or held something.
    fn is_wanted(&self, report: &Report) -> bool {
        let is_empty = report.sockets.is_empty() && report.left_while_alive.is_empty();
        let has_failed = |death: &Death| death.cause != Cause::Exit { code: 0 };
        let is_failure = report.death.as_ref().is_none_or(has_failed);
        (report.process.target || !is_empty) && (is_failure || !self.wanted.only_failed)
    }

    fn follow(&mut self, report: &Report, looks: &[LookedAt]) {
        if self.wanted.countdown {
            self.countdown.add(leftovers(report), looks);
        }
    }

    fn looked(&mut self, snapshot: &Snapshot, events: &mut Vec<Event>) {
        let look = self.countdown.look(snapshot);
        if let (1.., Some(why)) = (look.out_of_sight, &snapshot.refused) {
            events.push(Event::OutOfSight {
                netns: snapshot.netns,
                leftovers: look.out_of_sight,
                why: why.clone(),
            });
        }
        if !look.moved.is_empty() {
            events.push(Event::Moved {
                time: snapshot.time,
                leftovers: look.moved,
            });
        }
        if !look.freed.is_empty() {
            events.push(Event::Freed(look.freed));
        }
    }
}
