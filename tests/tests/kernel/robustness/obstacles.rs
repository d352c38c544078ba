//! What an attach may meet: the dead among the descendants, more children than descriptors, deaths on the way.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::net::checked;
use sockleak_tests::programs;
use sockleak_tests::tracer::{self, Tracer};
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_zombie_among_the_descendants,
            targets_that_descend_from_one_another,
            more_children_than_descriptors,
            too_few_descriptors_are_refused,
            a_death_during_the_attach,
        ],
    )
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

fn a_zombie_among_the_descendants() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let child = victim.forks("fork");
    victim.kill_child(child);
    wait_until("the zombie", || {
        fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    });
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&IDLE);
    tracer.finishes();
}

/// A child of a target, or the same process twice, is one target.
fn targets_that_descend_from_one_another() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let child = victim.forks("fork");
    let pid = victim.pid();
    let mut tracer = Tracer::attach_all([pid, child, pid], &[]);
    victim.group_killed();
    let reports = tracer.reports(2);
    assert!(reports.contains_key(&pid) && reports.contains_key(&child));
    tracer.finishes();
}

/// sockleak with that many descriptors at most.
fn with_descriptors(count: libc::rlim_t, pid: u32) -> Command {
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--pid", &pid.to_string()]);
    let limit = libc::rlimit {
        rlim_cur: count.min(32),
        rlim_max: count,
    };
    // SAFETY: setrlimit is a system call that needs no lock and no memory.
    unsafe {
        command.pre_exec(move || checked(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)).map(drop))
    };
    command
}

/// All of them are there at the attach, and all of them die at once.
fn more_children_than_descriptors() {
    const CHILDREN: usize = 250;
    let mut victim = Victim::start();
    victim.listen("4");
    victim.tell(&format!("workers {CHILDREN} 0"));
    for _ in 0..CHILDREN {
        victim.answer();
    }
    let mut tracer = Tracer::spawn(&mut with_descriptors(150, victim.pid()));
    tracer.watches();
    victim.group_killed();
    let reports = tracer.reports(1 + CHILDREN);
    assert!(reports.values().all(|report| report["death"]["signal"] == 9));
    tracer.finishes();
    assert_eq!(tracer.passed("lost").count(), 0);
}

fn too_few_descriptors_are_refused() {
    let victim = Victim::start();
    for count in [16, 64] {
        let run = tracer::finish(&mut with_descriptors(count, victim.pid()));
        assert_eq!(run.status, 2, "{}", run.stderr);
        let words = format!("only {count} descriptors are allowed");
        assert!(
            run.stderr.contains(&words) && run.stderr.contains("prlimit"),
            "{}",
            run.stderr
        );
    }
}

/// Whenever it dies, there is a report or a refusal that says why.
fn a_death_during_the_attach() {
    const ROUNDS: u32 = 20;
    for round in 0..ROUNDS {
        let (mut victim, _peers) = Victim::serving("4", 2);
        let child = victim.forks("fork");
        let mut tracer = Tracer::start(["--pid", &victim.pid().to_string()]);
        thread::sleep(scaled(Duration::from_millis(4)) * round);
        victim.group_killed();
        let status = tracer.status();
        let (lines, stderr) = (tracer.stdout(), tracer.stderr());
        let reports = |pid: u32| {
            let lines = lines.lines().filter(|line| line.contains(r#""type":"report""#));
            lines
                .filter(|line| line.contains(&format!(r#""process":{{"pid":{pid},"#)))
                .count()
        };
        match status {
            // A child that was dead when it was found is none that could be followed.
            0 => assert!(
                reports(victim.pid()) == 1 && reports(child) <= 1,
                "{lines}{stderr}"
            ),
            2 => {
                let reasons = ["there is no process", "dead already", "died before the attach"];
                let says_why = reasons.iter().any(|reason| stderr.contains(reason));
                assert!(says_why, "{stderr}");
            }
            other => panic!("status {other}: {stderr}"),
        }
    }
}
