//! How holders are searched for when deaths come in a row, of children that all have their parent's listener: it must not
//! become dearer with them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::seccomp::{self, Refused};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            holders_are_found_by_few_passes_and_without_proc,
            without_iterators_proc_is_searched_as_seldom,
        ],
    )
}

const PASS: &str = "a pass over all descriptors";
const SEARCH: &str = "a search of /proc";

fn holders_are_found_by_few_passes_and_without_proc() {
    let row = Row::traced(seccomp::LINKS);
    row.has_few(PASS);
    assert_eq!(row.count(SEARCH), 0, "{}", row.told);
}

/// The reader of ports is there, and the kernel makes no iterator for it.
fn without_iterators_proc_is_searched_as_seldom() {
    let row = Row::traced(seccomp::ITERATORS);
    row.has_few(SEARCH);
    assert_eq!(row.count(PASS), 0, "{}", row.told);
}

/// As many children die together.
const SOME: usize = 3;

fn kill_some(victim: &mut Victim) {
    victim.does(&format!("child killed-at-once {SOME}"));
}

/// A trace of a row of deaths.
struct Row {
    /// What sockleak said on stderr.
    told: String,
    took: Duration,
}

impl Row {
    /// Lets a listening process have children that are killed, for many looks, and then kills it. Every report names it as
    /// a holder of its listener, with the right descriptor.
    #[track_caller]
    fn traced(refused: &[Refused]) -> Self {
        let mut victim = Victim::start();
        victim.listen("4");
        let fd: i32 = victim.does("fd listener").parse().expect("a descriptor");
        let pid = victim.pid();
        let began = Instant::now();
        let mut tracer = Tracer::attach_without(refused, pid, &["-vv"]);
        let mut reports = HashMap::new();
        kill_some(&mut victim);
        for _ in 0..20 {
            // Some wait for their reports at any time.
            kill_some(&mut victim);
            reports.extend(tracer.reports(SOME));
        }
        reports.extend(tracer.reports(SOME));
        victim.killed_by(libc::SIGKILL);
        let last = tracer.report();
        tracer.finishes();
        let took = began.elapsed();
        last.shows(&["1 LISTEN closed listener now"]);
        for report in reports.values() {
            let holders = report.listener()["holders"].as_array().expect("a list");
            let is_parent = |holder: &&Value| holder["pid"] == pid && holder["fd"] == fd;
            assert!(holders.iter().any(|holder| is_parent(&holder)), "{report}");
            // The next child may have been there already.
            let mut others = holders.iter().filter(|holder| !is_parent(holder));
            let is_child = |other: &Value| {
                let other = other["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                other.is_some_and(|pid| reports.contains_key(&pid))
            };
            assert!(others.all(is_child), "{report}");
        }
        let told = tracer.stderr();
        Self { told, took }
    }

    fn count(&self, words: &str) -> usize {
        self.told.lines().filter(|line| line.contains(words)).count()
    }

    /// Four a second, one more after a quiet time, and two at the ends.
    #[track_caller]
    fn has_few(&self, words: &str) {
        let most = usize::try_from(self.took.as_millis() / 250).expect("a small number") + 3;
        let count = self.count(words);
        assert!(
            (1..=most).contains(&count),
            "{count} in {:?}: {}",
            self.took,
            self.told
        );
    }
}
