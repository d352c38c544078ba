//! Random situations, each verdict beside `bind()` and `listen()`.

mod cells;
mod deaths;
mod mismatch;
mod product;
mod rounds;

use std::env;
use std::time::{Duration, SystemTime};

use libtest_mimic::Trial;
use sockleak_tests::descriptors;
use sockleak_tests::limit::is_slow;
use sockleak_tests::situation::Random;

use self::deaths::Deaths;
use self::rounds::{Goal, Rounds};
use crate::{named, sandboxed};

/// Gives the same situations again.
const SEED: &str = "SOCKLEAK_DIFFERENTIAL_SEED";

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            verdicts_are_what_bind_says,
            long_verdicts_are_what_bind_says,
            verdicts_of_reports_are_what_bind_says,
        ],
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

fn verdicts_of_reports_are_what_bind_says() {
    let seed = begin();
    let mut deaths = Deaths::default();
    deaths.run(&mut Random::new(seed), Duration::from_secs(15));
    println!("differential: {}", deaths.told());
    judge(seed, &deaths.mismatches);
}

#[track_caller]
fn run(goal: Goal) {
    let seed = begin();
    let mut rounds = Rounds::begin(seed);
    rounds.run(goal);
    println!("{}", rounds.told());
    judge(seed, &rounds.failures());
}

/// Gets ready, and prints the seed.
fn begin() -> u64 {
    descriptors::leave_the_others().expect("the kernel has close_range");
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(now.expect("after 1970").as_micros()).expect("before the year 500,000")
    });
    println!("differential: {SEED}={seed}");
    seed
}

#[track_caller]
fn judge(seed: u64, failures: &[String]) {
    assert!(failures.is_empty(), "{SEED}={seed}\n{}", failures.join("\n"));
}
