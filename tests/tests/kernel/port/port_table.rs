//! Who has a port, as the kernel's iterators tell it.

use std::process::Command;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::programs;
use sockleak_tests::record;
use sockleak_tests::tracer::finish;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(&[], named![the_iterators_load_and_run])
}

/// They do on every kernel that the tests run on.
fn the_iterators_load_and_run() {
    let run = finish(Command::new(programs::sockleak()).args(["check", "--output", "json"]));
    let rows = run.stdout.lines().map(record::of);
    let found: Vec<Value> = rows.filter(|row| row["name"] == "port_table").collect();
    assert_eq!(found.len(), 1, "{}", run.stdout);
    assert_eq!(found[0]["met"], true, "{}", found[0]);
}
