//! Makes situations by the hundred, looks at all of them at once, and asks the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sockleak_tests::judge::{self, Timer};
use sockleak_tests::situation::{self, Binding, Made, Origin, Place, Random, State, Step, Word};

use super::cells::{Cells, STATES};
use super::mismatch::{Laboratory, Mismatch, settle};
use super::product::{Look, Product};

/// Situations that are looked at at once, in each namespace.
const AT_ONCE: usize = 80;
/// Sockets that are asked for in each situation.
const ASKED: usize = 16;
/// How often a situation is looked at: whatever bind() grants leaves a mark, so that the next needs another look.
const LOOKS: usize = 4;
/// Batches in the same namespaces.
const BATCHES: usize = 6;
/// After so many different mismatches it is enough.
const ENOUGH: usize = 12;
/// With fewer verdicts an empty cell is chance.
const MANY: u64 = 50_000;

/// More than one of so many verdicts is no chance when it differs once: what makes it differ is not on the port.
const PASSING: u64 = 1000;

/// When it ends.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    Time(Duration),
    Verdicts(u64),
}

pub struct Rounds {
    random: Random,
    product: Product,
    began: Instant,
    verdicts: u64,
    /// Requests that sockleak cannot be asked about.
    unasked: u64,
    cells: Cells,
    /// Mismatches, each as small as it can be.
    mismatches: Vec<String>,
    /// Mismatches that were not there again.
    passing: u64,
    /// Steps that the kernel took, and all.
    made: (u64, u64),
}

/// A situation and what is asked in it.
struct Trial {
    port: u16,
    low: bool,
    steps: Vec<Step>,
    asked: Vec<Binding>,
    state: &'static str,
    _made: Vec<Made>,
}

impl Rounds {
    pub fn begin(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            product: Product::load(),
            began: Instant::now(),
            verdicts: 0,
            unasked: 0,
            cells: Cells::new(situation::marks_reuseaddr()),
            mismatches: Vec::new(),
            passing: 0,
            made: (0, 0),
        }
    }

    pub fn run(&mut self, goal: Goal) {
        while !self.has_reached(goal) {
            let places =
                [false, true].map(|nonlocal| Place::make(nonlocal).expect("root may make a namespace"));
            for _ in 0..BATCHES {
                self.batch(&places);
                if self.has_reached(goal) {
                    break;
                }
            }
        }
    }

    fn has_reached(&self, goal: Goal) -> bool {
        let is_reached = match goal {
            Goal::Time(time) => self.began.elapsed() >= time,
            Goal::Verdicts(count) => self.verdicts >= count,
        };
        is_reached || self.mismatches.len() >= ENOUGH
    }

    fn batch(&mut self, places: &[Place]) {
        let mut trials: Vec<Vec<Trial>> = places.iter().map(|place| self.trials(place)).collect();
        settle();
        for _ in 0..LOOKS {
            let ports: BTreeSet<u16> = trials.iter().flatten().map(|trial| trial.port).collect();
            let look = self.product.look(places, &ports);
            let mut differing = Vec::new();
            for (index, place) in places.iter().enumerate() {
                place.enter();
                name_states(&mut trials[index]);
                for trial in &mut trials[index] {
                    let mismatches = self.ask(&look, place, trial);
                    differing.extend(mismatches.into_iter().map(|mismatch| (index, mismatch)));
                }
            }
            for (place, mismatch) in differing {
                self.examine(places, place, mismatch);
            }
        }
    }

    fn trials(&mut self, place: &Place) -> Vec<Trial> {
        place.enter();
        let mut trials = Vec::with_capacity(AT_ONCE);
        for _ in 0..AT_ONCE {
            let low = self.random.percent(5);
            let Some(port) = place.unused_port(low) else {
                continue;
            };
            let steps = situation::steps(&mut self.random);
            let made: Vec<_> = steps.iter().map(|step| step.make(place, port)).collect();
            self.made.0 += made.iter().filter(|made| made.is_ok()).count() as u64;
            self.made.1 += made.len() as u64;
            let asked = (0..ASKED)
                .map(|_| situation::asked(&mut self.random, &steps))
                .collect();
            trials.push(Trial {
                port,
                low,
                asked,
                state: STATES[0],
                steps,
                _made: made.into_iter().flatten().collect(),
            });
        }
        trials
    }

    /// Asks both until bind() succeeds, which changes what the look saw.
    fn ask(&mut self, look: &Look, place: &Place, trial: &mut Trial) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        let said = look.answers(place, trial.port, &trial.asked);
        let mut asked_for = 0;
        for (asked, said) in trial.asked.iter().zip(said) {
            asked_for += 1;
            let Some(said) = said else {
                self.unasked += 1;
                continue;
            };
            let real = asked.try_at(trial.port);
            self.verdicts += 1;
            self.cells.add(trial.state, asked, real);
            if said != real {
                mismatches.push(Mismatch {
                    steps: trial.steps.clone(),
                    asked: *asked,
                    low: trial.low,
                    said,
                    real,
                });
            }
            if real.bind == Word::Ok {
                trial.steps.push(Step::gone(*asked));
                break;
            }
        }
        trial.asked.drain(..asked_for);
        mismatches
    }

    /// Counts a mismatch if it is there again, and prints it if it is a new one.
    fn examine(&mut self, places: &[Place], place: usize, mismatch: Mismatch) {
        if self.mismatches.len() >= ENOUGH {
            return;
        }
        let mut laboratory = Laboratory {
            product: &mut self.product,
            places,
            place,
        };
        let Some((said, real, _)) = laboratory.sees_again(&mismatch) else {
            self.passing += 1;
            return;
        };
        let smallest = laboratory.shrink(Mismatch {
            said,
            real,
            ..mismatch
        });
        let place = laboratory.place;
        let mut told = smallest.to_string();
        if places[place].nonlocal {
            told.push_str("\n    (ip_nonlocal_bind is on)");
        }
        if let Some((.., owners)) = laboratory.sees_again(&smallest) {
            told.extend(owners.iter().map(|owner| format!("\n    it saw {owner}")));
        }
        let is_new = self
            .mismatches
            .iter()
            .all(|other| first_lines(other) != first_lines(&told));
        if is_new {
            println!("{told}");
            self.mismatches.push(told);
        }
    }

    /// What is wrong, if anything is.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.mismatches.clone();
        if self.passing * PASSING > self.verdicts {
            failures.push(format!(
                "{} mismatches were there once, and not when the same sockets were made on another port",
                self.passing
            ));
        }
        if self.verdicts >= MANY {
            failures.extend(
                self.cells
                    .empty()
                    .into_iter()
                    .map(|cell| format!("no verdict in the cell {cell}")),
            );
        }
        failures
    }

    /// What it did.
    pub fn told(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = self.verdicts as f64 / seconds;
        format!(
            "{}\n{} verdicts in {seconds:.1} s ({rate:.0}/s), {} different mismatches, {} that passed, {} requests not asked; \
             {} of {} sockets were made",
            self.cells.table(),
            self.verdicts,
            self.mismatches.len(),
            self.passing,
            self.unasked,
            self.made.0,
            self.made.1
        )
    }
}

/// What a mismatch is known by: all but the owners.
fn first_lines(told: &str) -> String {
    told.lines().take_while(|line| !line.contains("it saw")).collect()
}

/// Names the state of the sockets of each port, by the kernel's tables. What is only bound is in none.
fn name_states(trials: &mut [Trial]) {
    let mut listed: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
    for entry in judge::sockets() {
        let state = match (entry.state, entry.timer) {
            ("FIN_WAIT2", Timer::TimeWait) => "FIN_WAIT2 mini",
            (state, _) => state,
        };
        listed.entry(entry.local.port()).or_default().insert(state);
    }
    for trial in trials {
        let mut states = listed.remove(&trial.port).unwrap_or_default();
        let bound = trial.steps.iter().filter_map(|step| match step.state {
            State::Bound => Some("BOUND"),
            State::Disconnected => Some("DISCONNECTED"),
            State::Reset if step.origin == Origin::Bound => Some("RESET"),
            _ => None,
        });
        states.extend(bound);
        trial.state = match (states.len(), states.first()) {
            (0, _) => "nothing",
            (1, Some(state)) => qualified(state, &trial.steps),
            _ => "several",
        };
    }
}

/// Sockets that are all of MPTCP or in TCP_REPAIR are cells of their own.
fn qualified(state: &'static str, steps: &[Step]) -> &'static str {
    let mut steps = steps.iter().filter(|step| step.state != State::Gone).peekable();
    if steps.peek().is_none() {
        return state;
    }
    let steps: Vec<&Step> = steps.collect();
    if steps.iter().all(|step| step.repair.is_some()) {
        return "REPAIR";
    }
    let of_mptcp = ["MPTCP BOUND", "MPTCP LISTEN", "MPTCP ESTABLISHED"];
    let is_mptcp = steps.iter().all(|step| step.mptcp);
    of_mptcp
        .into_iter()
        .find(|name| is_mptcp && name.ends_with(state))
        .unwrap_or(state)
}
