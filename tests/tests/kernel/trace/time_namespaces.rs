//! sockleak in a time namespace, whose clocks are not those that the BPF programs read.

use std::fs;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::report::{moment, number};
use sockleak_tests::tracer::{self, Tracer};
use sockleak_tests::victim::Victim;
use sockleak_tests::{programs, time_namespace};

use crate::robustness::refusals::refused;
use crate::{Need, named, sandboxed};

/// More than a day.
const AHEAD: i64 = 100_000;

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::TimeNamespace],
        named![
            moments_are_those_of_the_wall_clock,
            losses_before_a_death_are_not_its_own,
            children_live_as_long_as_they_do,
            a_namespace_for_children_only,
        ],
    )
}

/// A moment that is computed from ticks or from another clock may be so much too early or too late.
const ERROR: SignedDuration = SignedDuration::from_secs(1);

/// Something happened while the test did something.
#[track_caller]
fn is_within(what: &str, value: &Value, (began, ended): (Timestamp, Timestamp)) {
    let moment = moment(value);
    assert!(
        (began - ERROR..=ended + ERROR).contains(&moment),
        "{what} at {moment}, and not between {began} and {ended}"
    );
}

fn meanwhile<T>(work: impl FnOnce() -> T) -> (T, (Timestamp, Timestamp)) {
    let began = Timestamp::now();
    let result = work();
    (result, (began, Timestamp::now()))
}

fn sockleak_on(pids: &str) -> Command {
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--pid", pids]);
    command
}

/// Half of the time since the boot: a clock cannot be set back further.
fn behind() -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").expect("/proc");
    let seconds = uptime.split('.').next().expect("a number").parse::<i64>();
    -(seconds.expect("a number") / 2)
}

#[track_caller]
fn tells_right_moments(command: impl FnOnce(&str) -> Command) {
    let ((mut victim, _peers), started) = meanwhile(|| Victim::serving("4", 2));
    let mut tracer = Tracer::spawn(&mut command(&victim.pid().to_string()));
    let (watch, attached) = meanwhile(|| tracer.watches());
    is_within("the attach", &watch["time"], attached);
    let (_, closed) = meanwhile(|| victim.does("close 1"));
    let (_, died) = meanwhile(|| victim.killed_by(libc::SIGKILL));
    let (report, reported) = meanwhile(|| tracer.report());
    let told = tracer.passed("transition").next().expect("it closed one");
    is_within("the close", &told["time"], closed);
    is_within("the start", &report["process"]["started"], started);
    is_within("the death", &report["death"]["time"], died);
    is_within("the report", &report["time"], (died.0, reported.1));
    let changes = report.sockets().iter();
    let mut changes = changes.flat_map(|socket| socket["transitions"].as_array().expect("a list"));
    is_within("the first close", &changes.next().expect("changes")["time"], died);
}

/// Whether a child is still the process that it was is told by when it started.
fn children_live_as_long_as_they_do() {
    for seconds in [AHEAD, behind()] {
        let (mut victim, _peers) = Victim::serving("4", 2);
        let child = victim.forks("fork");
        let mut command = sockleak_on(&victim.pid().to_string());
        time_namespace::move_ahead(&mut command, seconds);
        let mut tracer = Tracer::spawn(&mut command);
        tracer.watches();
        victim.listen("4");
        let later = victim.forks("fork");
        for pid in [child, later] {
            victim.kill_child(pid);
            let report = tracer.report();
            assert_eq!(report["process"]["pid"], pid, "{report}");
            assert_eq!(report["death"]["signal"], 9, "{report}");
        }
        victim.killed_by(libc::SIGKILL);
        assert_eq!(tracer.report()["process"]["pid"], victim.pid());
        tracer.finishes();
    }
}

fn moments_are_those_of_the_wall_clock() {
    for seconds in [AHEAD, behind()] {
        tells_right_moments(|pid| {
            let mut command = sockleak_on(pid);
            time_namespace::move_ahead(&mut command, seconds);
            command
        });
    }
}

/// Whether a loss came before a death is a comparison of moments.
fn losses_before_a_death_are_not_its_own() {
    let mut victim = Victim::start();
    let mut bystander = Victim::start();
    victim.does("pairs 500 127.0.0.1");
    let mut command = sockleak_on(&format!("{},{}", victim.pid(), bystander.pid()));
    // It has room for 56 transitions.
    command.args(["--ring-size", "4096"]);
    time_namespace::move_ahead(&mut command, AHEAD);
    let mut tracer = Tracer::spawn(&mut command);
    tracer.watches();
    tracer.stops();
    victim.does("close 500");
    tracer.signal(libc::SIGCONT);
    let lost = tracer.record("lost");
    assert!(number(&lost, "events") > 0, "{lost}");
    bystander.killed_by(libc::SIGKILL);
    let report = tracer.report_with_losses();
    assert_eq!(report["process"]["pid"], bystander.pid());
    assert_eq!(report["lost"]["events"], 0, "since its own death: {report}");
}

/// A process whose children would be in another time namespace can start no threads. Where exec() moves it there, the
/// moments are right; else sockleak says what the matter is.
fn a_namespace_for_children_only() {
    let moved = |ahead: bool| {
        move |pid: &str| {
            let mut command = sockleak_on(pid);
            if ahead {
                time_namespace::move_ahead(&mut command, AHEAD);
            }
            time_namespace::move_children(&mut command);
            command
        }
    };
    for ahead in [false, true] {
        if time_namespace::exec_moves() {
            tells_right_moments(moved(ahead));
        } else {
            let victim = Victim::start();
            let run = tracer::finish(&mut moved(ahead)(&victim.pid().to_string()));
            refused(
                &run,
                "time_namespace: its children would be in another time namespace",
            );
            assert!(run.stderr.contains("exit $?"), "{}", run.stderr);
        }
    }
}
