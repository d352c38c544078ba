//! The verdicts of a report: a process has the sockets of many situations, and dies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use sockleak_tests::situation::{
    self, Answers, Binding, Crash, Device, Made, Origin, Place, Random, State, Step, Word,
};
use sockleak_tests::tracer::Tracer;

use super::mismatch::{Mismatch, settle};

/// Situations of a process.
const AT_ONCE: usize = 150;
/// After so many mismatches it is enough.
const ENOUGH: usize = 6;

/// What was compared.
#[derive(Default)]
pub struct Deaths {
    deaths: u64,
    verdicts: u64,
    passing: u64,
    pub mismatches: Vec<String>,
}

impl Deaths {
    /// Lets processes die for that time.
    pub fn run(&mut self, random: &mut Random, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && self.mismatches.len() < ENOUGH {
            let place = Place::make(random.percent(30)).expect("root may make a namespace");
            let situations = (0..AT_ONCE).map(|_| steps(random)).collect();
            let differing = self.die(&place, situations);
            for mismatch in differing {
                self.examine(&place, mismatch);
            }
        }
    }

    pub fn told(&self) -> String {
        let Self {
            deaths,
            verdicts,
            passing,
            ..
        } = self;
        format!("{verdicts} verdicts of {deaths} reports, {passing} mismatches that passed")
    }

    /// One death, and every verdict of its report beside the kernel.
    fn die(&mut self, place: &Place, situations: Vec<Vec<Step>>) -> Vec<Mismatch> {
        let mut made: Vec<Made> = Vec::new();
        let mut ports = BTreeMap::new();
        for steps in situations {
            let port = place.unused_port(false).expect("a namespace has many ports");
            made.extend(steps.iter().filter_map(|step| step.make(place, port).ok()));
            ports.insert(u64::from(port), steps);
        }
        settle();
        let crash = Crash::begin(made).expect("a process more");
        let mut tracer = Tracer::attach(crash.pid(), &["--once"]);
        crash.kill();
        let report = tracer.report_with_losses();
        self.deaths += 1;
        let mut differing = Vec::new();
        for (port, mut steps) in ports {
            let restarts = report["restart"].as_array().expect("a list").iter();
            let verdicts: Vec<_> = restarts
                .filter(|restart| restart["lport"] == port)
                .flat_map(verdicts)
                .collect();
            for (mut asked, said) in verdicts {
                // It is the same program that starts again.
                let floats = |step: &Step| step.binding.address == asked.address && step.binding.freebind;
                asked.freebind = steps.iter().any(floats);
                let real = asked.try_at(u16::try_from(port).expect("a port"));
                self.verdicts += 1;
                if said != real {
                    let steps = steps.clone();
                    differing.push(Mismatch {
                        steps,
                        asked,
                        low: false,
                        said,
                        real,
                    });
                }
                if real.bind == Word::Ok {
                    steps.push(Step::gone(asked));
                    break;
                }
            }
        }
        tracer.finishes();
        differing
    }

    /// Counts a mismatch if another process that dies with the same sockets has it too.
    fn examine(&mut self, place: &Place, mismatch: Mismatch) {
        if self.mismatches.len() >= ENOUGH {
            return;
        }
        let is_same = |other: &Mismatch| {
            (other.asked, other.said, other.real) == (mismatch.asked, mismatch.said, mismatch.real)
        };
        let steps = mismatch.steps.clone();
        if !self.die(place, vec![steps]).iter().any(is_same) {
            self.passing += 1;
            return;
        }
        let mut smallest = mismatch.clone();
        let mut index = 0;
        while index < smallest.steps.len() {
            let mut fewer = smallest.clone();
            fewer.steps.remove(index);
            if self.die(place, vec![fewer.steps.clone()]).iter().any(is_same) {
                smallest = fewer;
            } else {
                index += 1;
            }
        }
        let told = format!("by the report of a process that died with these sockets, {smallest}");
        println!("{told}");
        self.mismatches.push(told);
    }
}

/// The sockets of a situation, all of one user, so that a restart is one of the same.
fn steps(random: &mut Random) -> Vec<Step> {
    let mut steps = situation::steps(random);
    for step in &mut steps {
        step.binding.user = 0;
        step.binding.device = Device::None;
        // There is no other end: whoever gets its FIN answers with an RST, after the report or before.
        step.repair = None;
    }
    // Without anything that the process listened on or was bound to, a report has no verdict.
    let listens = |step: &Step| matches!(step.state, State::Bound | State::Listen);
    if let Some(first) = steps.first_mut().filter(|first| !listens(first)) {
        first.state = random.pick(&[State::Bound, State::Listen]);
        first.origin = Origin::Bound;
        first.held = false;
    }
    steps
}

/// What a restart at that address is told, with each combination of options.
fn verdicts(restart: &Value) -> Vec<(Binding, Answers)> {
    let address: IpAddr = restart["laddr"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .expect("an address");
    let verdict = |verdict: &Value| {
        let flags = verdict["flags"].as_array().expect("a list");
        let has = |name: &str| flags.iter().any(|flag| flag == name);
        let asked = Binding {
            address,
            v6only: restart["v6only"] == true,
            reuseaddr: has("reuseaddr"),
            reuseport: has("reuseport"),
            device: Device::None,
            user: 0,
            freebind: false,
        };
        let said = Answers {
            bind: word(&verdict["bind"]),
            listen: word(&verdict["listen"]),
        };
        (asked, said)
    };
    restart["verdicts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(verdict)
        .collect()
}

fn word(told: &Value) -> Word {
    let words = [
        Word::Ok,
        Word::InUse,
        Word::NotAvailable,
        Word::Invalid,
        Word::Permission,
        Word::Unknown,
    ];
    let found = words.into_iter().find(|word| *told == word.to_string());
    found.unwrap_or_else(|| panic!("{told} is no answer"))
}
