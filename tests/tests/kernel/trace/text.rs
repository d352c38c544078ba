//! The report for people.

use std::fs;
use std::process::{self, Command};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sockleak_tests::limit::scaled;
use sockleak_tests::programs;
use sockleak_tests::tracer::{Run, Tracer, finish};
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            the_report_says_what_matters,
            many_sockets_are_few_lines,
            the_name_of_a_process_is_escaped,
            the_demo_is_real_and_leaves_nothing_behind,
            check_finds_everything_in_place,
        ],
    )
}

/// What a pipe gets has no colours and no cursor movements.
#[track_caller]
fn is_plain(text: &str) {
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{text:?}");
}

/// Lets the victim die while it is watched, and gives what was printed.
#[track_caller]
fn death_in_text(victim: &mut Victim, options: &[&str]) -> Run {
    let mut tracer = Tracer::attach_for_text(victim.pid(), options);
    victim.dies("segv");
    let run = Run {
        status: tracer.status(),
        stdout: tracer.stdout(),
        stderr: tracer.stderr(),
    };
    assert_eq!(run.status, 0, "{}", run.stderr);
    is_plain(&run.stdout);
    is_plain(&run.stderr);
    run
}

fn the_report_says_what_matters() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let child = victim.forks("fork");
    let _peers = victim.accept(address, 3);
    let run = death_in_text(&mut victim, &["--once"]);
    let (pid, child, port) = (
        victim.pid().to_string(),
        child.to_string(),
        address.port().to_string(),
    );
    for word in ["signal 11 (SEGV)", "FIN_WAIT2", "LISTEN", &pid, &child, &port] {
        assert!(run.stdout.contains(word), "no `{word}` in\n{}", run.stdout);
    }
}

fn many_sockets_are_few_lines() {
    let (mut victim, _peers) = Victim::serving("4", 100);
    let run = death_in_text(&mut victim, &[]);
    assert!(run.stdout.contains("100"), "{}", run.stdout);
    assert!(run.stdout.lines().count() < 40, "{}", run.stdout);
    for line in run.stdout.lines() {
        assert!(line.chars().count() <= 80, "longer than 80 columns: {line}");
    }
}

/// A process chooses its name freely; this one would turn the terminal red.
fn the_name_of_a_process_is_escaped() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("comm \\e[31mred");
    let run = death_in_text(&mut victim, &[]);
    assert!(run.stdout.contains("[31mred"), "{}", run.stdout);
}

/// Processes that carry that mark in their environment, which their children inherit.
fn processes_marked(mark: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let environments = processes.flat_map(|process| fs::read(process.path().join("environ")));
    environments
        .filter(|environment| {
            environment
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        })
        .count()
}

fn the_demo_is_real_and_leaves_nothing_behind() {
    let mark = format!("SOCKLEAK_TEST_DEMO={}", process::id());
    let (name, value) = mark.split_once('=').expect("it has one");
    let start = Instant::now();
    let run = finish(Command::new(programs::sockleak()).arg("demo").env(name, value));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(start.elapsed() < scaled(Duration::from_secs(10)));
    is_plain(&run.stdout);
    for word in ["SEGV", "FIN_WAIT1", "FIN_WAIT2"] {
        assert!(run.stdout.contains(word), "no `{word}` in\n{}", run.stdout);
    }
    assert_eq!(processes_marked(&mark), 0);
}

fn check_finds_everything_in_place() {
    let run = finish(Command::new(programs::sockleak()).arg("check"));
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    is_plain(&run.stdout);
}
