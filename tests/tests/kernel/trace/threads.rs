//! Which of a process's threads ends, and when: only the end of the last one is a death.

use libtest_mimic::Trial;
use sockleak_tests::death;
use sockleak_tests::record;
use sockleak_tests::report::Report;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            sixty_four_threads_and_sigkill_are_one_report,
            threads_that_end_alone_are_no_death,
            one_thread_that_leaves_by_the_system_call,
            a_last_thread_that_is_not_the_leader,
            a_leader_that_leaves_last,
            a_worker_that_breaks_a_rule_for_all,
            exec_by_another_thread_is_no_death,
            a_thread_with_a_table_of_its_own_is_said,
        ],
    )
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

/// Before 6.16 several threads may find that none is left (traps 2 and 3). In every other victim the leader
/// has gone before.
fn sixty_four_threads_and_sigkill_are_one_report() {
    const ROUNDS: usize = 20;
    let mut servers: Vec<_> = (0..ROUNDS).map(|_| Victim::serving("4", 2)).collect();
    for (round, (victim, _)) in servers.iter_mut().enumerate() {
        victim.does("threads 63");
        if round % 2 == 1 {
            victim.does("leader-exit");
        }
    }
    let mut tracer = Tracer::attach_all(servers.iter().map(|(victim, _)| victim.pid()), &[]);
    let kill = |(victim, _): &mut (Victim, _)| victim.killed_by(libc::SIGKILL);
    let statuses: Vec<_> = servers.iter_mut().map(kill).collect();
    let reports = tracer.reports(ROUNDS);
    tracer.finishes();
    for ((victim, _), status) in servers.iter().zip(statuses) {
        let report = &reports[&victim.pid()];
        report.shows(&IDLE);
        death::agrees_with_wait(report, status);
        assert_eq!(report["process"]["comm"], "victim", "{report}");
        assert!(!tells_of_tables(report), "one table: {report}");
    }
}

/// A server obeys the commands, of which the last one ends it. There is one report, and wait() agrees with it.
#[track_caller]
fn death_after(commands: &[&str]) -> Report {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let (last, before) = commands.split_last().expect("a command that kills");
    for command in before {
        victim.does(command);
    }
    victim.tell(last);
    let status = victim.end();
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
    report
}

fn threads_that_end_alone_are_no_death() {
    let report = death_after(&[
        "thread ends exit-thread 9",
        "thread ends seccomp thread",
        "hello",
        "die _exit 3",
    ]);
    assert_eq!(report["death"]["exit_code"], 3, "{report}");
}

fn one_thread_that_leaves_by_the_system_call() {
    let report = death_after(&["die exit-thread 5"]);
    assert_eq!(report["death"]["exit_code"], 5, "{report}");
}

/// Its code is that of the process where `synchronize_group_exit` stores it (kernel/exit.c); without that, the
/// leader's is.
fn a_last_thread_that_is_not_the_leader() {
    death_after(&["leader-exit", "die exit-thread 7"]);
}

fn a_leader_that_leaves_last() {
    let report = death_after(&["thread ends exit-thread 9", "die exit-thread 6"]);
    assert_eq!(report["death"]["exit_code"], 6, "{report}");
}

fn a_worker_that_breaks_a_rule_for_all() {
    let report = death_after(&["threads 3", "die-in-thread seccomp process"]);
    assert_eq!(report["death"]["signal_name"], "SYS", "{report}");
    death::nobody_sent_it(&report);
}

/// The kernel ends the other threads, the leader among them, and the process lives on (trap 5).
fn exec_by_another_thread_is_no_death() {
    let report = death_after(&["keep-on-exec", "threads 10", "thread execs", "die _exit 4"]);
    assert_eq!(
        report["process"]["comm"], "exe",
        "the name after the exec: {report}"
    );
}

/// Which of the threads is the last one is the scheduler's choice, and only its table is an inventory.
fn a_thread_with_a_table_of_its_own_is_said() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    victim.does("threads 3");
    victim.does("thread owns-a-table");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let status = victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    death::agrees_with_wait(&report, status);
    report.agrees_with_the_kernel();
    assert!(tells_of_tables(&report), "{report}");
}

/// Whether the report says that threads had tables of their own.
fn tells_of_tables(report: &Report) -> bool {
    record::blind_spots(&report["blind"]).contains(&"other_tables")
}
