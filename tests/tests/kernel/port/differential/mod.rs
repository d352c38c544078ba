//! Random situations, each verdict beside `bind()` and `listen()`.

mod cells;
mod known;
mod mismatch;
mod product;
mod rounds;

use std::env;
use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use sockleak_tests::limit::is_slow;

use self::rounds::{Goal, Rounds};
use crate::{named, sandboxed};

/// Gives the same situations again.
const SEED: &str = "SOCKLEAK_DIFFERENTIAL_SEED";

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![verdicts_are_what_bind_says, long_verdicts_are_what_bind_says],
    )
}

fn verdicts_are_what_bind_says() {
    let seconds = if is_slow() { 60 } else { 30 };
    run(Goal::Time(Duration::from_secs(seconds)));
}

fn long_verdicts_are_what_bind_says() {
    if is_slow() {
        run(Goal::Time(Duration::from_secs(180)));
    } else {
        run(Goal::Verdicts(200_000));
    }
}

#[track_caller]
fn run(goal: Goal) {
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(now.expect("after 1970").as_micros()).expect("before the year 500,000")
    });
    println!("differential: {SEED}={seed}");
    let mut rounds = Rounds::begin(seed);
    rounds.run(goal);
    println!("{}", rounds.told());
    assert!(
        rounds.failures().is_empty(),
        "{SEED}={seed}\n{}",
        rounds.failures().join("\n")
    );
}
