//! Collects the evidence of deaths: when it is due, and what is forgotten after it.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use anyhow::Result;
use jiff::Timestamp;
use sockleak_core::observed::{Evidence, ProcessId, State};
use sockleak_core::verdict::settled;
use sockleak_kernel::inventory::{Dead, Deaths, Records, Survey, Surveyed};

use super::evidence::{Gathered, Parts};
use super::pace::Pace;
use super::processes::Processes;
use super::snapshots::{Questions, Seen};
use super::watch::Watch;

/// The evidence is taken at the earliest this long after the pidfd became readable.
const SETTLE_MIN: Duration = Duration::from_millis(50);
/// And at the latest by the first look that is this long after.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Collects the evidence of whoever is dead.
pub struct Collector {
    /// How long the kernel has for what it does at once; by need where the user did not say.
    settle: Option<Duration>,
    pace: Pace,
    /// Of processes that were not looked at yet.
    surveys: HashMap<ProcessId, (Survey, Questions)>,
    batch: Option<Batch>,
}

/// Processes whose sockets were looked at together.
struct Batch {
    /// Those of which no evidence was taken yet, and whether it must be taken as it is.
    left: IntoIter<(ProcessId, bool)>,
    surveyed: Surveyed,
    gathered: Gathered,
    /// Dead processes whose evidence was taken.
    taken: Vec<ProcessId>,
}

impl Collector {
    pub fn new(settle: Option<Duration>) -> Self {
        Self {
            settle,
            pace: Pace::default(),
            surveys: HashMap::new(),
            batch: None,
        }
    }

    /// Looks at the sockets of the dead whose evidence is due; of all that are dead or dying if there is no later call.
    /// Returns the PID and the `comm` of those of which there is nothing to say.
    ///
    /// # Errors
    /// When the maps or sock_diag cannot be read.
    pub fn begin(&mut self, parts: &mut Parts<'_>, is_last: bool) -> Result<Vec<(u32, String)>> {
        let settle = match self.settle {
            _ if is_last => Duration::ZERO,
            Some(settle) => settle,
            None => SETTLE_MIN,
        };
        let processes = parts.watch.processes();
        let dying = processes.dying().filter(|_| is_last);
        let dead: Vec<(ProcessId, Duration)> = processes
            .dead()
            .map(|(id, since)| (id, since.elapsed()))
            .chain(dying.map(|id| (id, Duration::ZERO)))
            .collect();
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        let deaths = parts.watch.inventory().deaths();
        let lost = parts.lost_events();
        let lost_something = |id: ProcessId| parts.losses.since(id.since, lost) > 0;
        let (dead, silent): (Vec<_>, Vec<_>) = dead
            .into_iter()
            .partition(|(id, _)| lost_something(*id) || may_have_left(*id, processes, &deaths));
        let mut ended = Vec::new();
        for (id, _) in silent.into_iter().filter(|(_, elapsed)| *elapsed >= settle) {
            let comm = deaths.of(id).map(|death| death.comm.clone());
            ended.push((id.pid, comm.unwrap_or_default()));
            self.forget(id, parts.watch, &deaths);
        }
        let now = Instant::now();
        if !is_last && !self.pace.allows(now) {
            return Ok(ended);
        }
        // The maps are read while sockets settle.
        self.survey(
            &dead.iter().map(|(id, _)| (*id, deaths.time(*id))).collect(),
            parts.watch,
        )?;
        let must = |elapsed: Duration| is_last || self.settle.is_some() || elapsed >= SETTLE_MAX;
        let due: Vec<(ProcessId, bool)> = dead
            .into_iter()
            .filter(|(_, elapsed)| *elapsed >= settle)
            .map(|(id, elapsed)| (id, must(elapsed)))
            .collect();
        if !due.is_empty() {
            let searched = self.look(due, Some(deaths), parts)?;
            self.pace.looked(now, searched);
        }
        Ok(ended)
    }

    /// Looks at what living processes have left, as far as they are known.
    ///
    /// # Errors
    /// When the maps or sock_diag cannot be read.
    pub fn begin_living(&mut self, parts: &mut Parts<'_>) -> Result<()> {
        let alive = parts.watch.processes().alive();
        let ids: Vec<ProcessId> = alive
            .filter(|(_, watched)| watched.process.target || watched.closed_alive)
            .map(|(id, _)| id)
            .collect();
        self.survey(&ids.iter().map(|id| (*id, 0)).collect(), parts.watch)?;
        self.look(ids.into_iter().map(|id| (id, true)).collect(), None, parts)?;
        Ok(())
    }

    /// The next evidence of those that were looked at. After the last one they are forgotten.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn next(&mut self, parts: &mut Parts<'_>) -> Result<Option<Evidence>> {
        let Some(batch) = &mut self.batch else {
            return Ok(None);
        };
        for (id, must) in batch.left.by_ref() {
            let records = parts.watch.inventory().records(id, &batch.surveyed)?;
            if !must && !settled(&records.inventory) && !waits_for_peers(&records) {
                continue;
            }
            let evidence = batch.gathered.evidence(id, records, parts);
            if must || batch.gathered.has_settled(&evidence) {
                if batch.gathered.deaths.is_some() {
                    batch.taken.push(id);
                }
                return Ok(Some(evidence));
            }
        }
        if let Some(batch) = self.batch.take()
            && let Some(deaths) = &batch.gathered.deaths
        {
            let inventory = parts.watch.inventory_mut();
            inventory.forget_sockets(&batch.taken, &batch.surveyed, deaths)?;
            for id in batch.taken {
                self.forget(id, parts.watch, deaths);
            }
        }
        Ok(None)
    }

    /// Surveys those of these processes that were not surveyed since they died.
    fn survey(&mut self, dead: &Dead, watch: &mut Watch) -> Result<()> {
        let is_new = |id: &ProcessId, death: u64| {
            let survey = self.surveys.get(id);
            // The death was not known yet.
            survey.is_none_or(|(survey, _)| survey.death() != death)
        };
        let dead: Dead = dead
            .iter()
            .map(|(id, death)| (*id, *death))
            .filter(|(id, death)| is_new(id, *death))
            .collect();
        if dead.is_empty() {
            return Ok(());
        }
        let (inventory, processes, namespaces) = watch.parts();
        let who = |pid, time| processes.at(pid, time).map(|(id, _)| id);
        let mut questions: HashMap<ProcessId, Questions> = HashMap::new();
        let surveys = inventory.survey(&dead, who, |id, socket| {
            // Before somebody else leaves it, and the namespace is gone.
            namespaces.sighted(id, socket.netns);
            questions.entry(id).or_default().add(socket);
        })?;
        for (id, survey) in surveys {
            let questions = questions.remove(&id).unwrap_or_default();
            self.surveys.insert(id, (survey, questions));
        }
        Ok(())
    }

    /// Looks for what is left of processes that were surveyed. How long the search for holders took.
    fn look(
        &mut self,
        due: Vec<(ProcessId, bool)>,
        deaths: Option<Deaths>,
        parts: &mut Parts<'_>,
    ) -> Result<Duration> {
        let mut questions = Questions::default();
        let mut surveys = Vec::new();
        for (survey, asked) in due.iter().filter_map(|(id, _)| self.surveys.remove(id)) {
            questions.extend(asked);
            surveys.push(survey);
        }
        let (inventory, _, namespaces) = parts.watch.parts();
        let surveyed = inventory.gather(surveys)?;
        let Seen {
            snapshots,
            holders,
            searched,
        } = questions.look(&surveyed, namespaces, parts.programs.port_reader())?;
        self.batch = Some(Batch {
            left: due.into_iter(),
            surveyed,
            gathered: Gathered {
                time: Timestamp::now(),
                snapshots,
                holders,
                deaths,
            },
            taken: Vec::new(),
        });
        Ok(searched)
    }

    fn forget(&mut self, id: ProcessId, watch: &mut Watch, deaths: &Deaths) {
        self.surveys.remove(&id);
        watch.forget(id, deaths);
    }
}

/// A target is always reported; a child only if it held or left a socket.
fn may_have_left(id: ProcessId, processes: &Processes, deaths: &Deaths) -> bool {
    let watched = processes.get(id);
    watched.is_some_and(|watched| watched.process.target || watched.closed_alive)
        || deaths.of(id).is_none_or(|death| !death.had_no_socket())
}

/// Only sockets that wait for an answer of their peers are left: sock_diag knows more about them.
fn waits_for_peers(records: &Records) -> bool {
    records.inventory.iter().all(|socket| {
        settled(std::slice::from_ref(socket))
            || matches!(
                socket.last_state(),
                State::FinWait1 | State::Closing | State::LastAck
            )
    })
}
