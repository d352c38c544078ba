//! One table of descriptors for two processes (CLONE_FILES without CLONE_THREAD): nothing is closed before the
//! last of them is dead.

use libtest_mimic::Trial;
use serde_json::json;
use sockleak_tests::death;
use sockleak_tests::report::Report;
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_sharer_that_dies_later_releases_what_it_held,
            a_sharer_that_dies_first_releases_nothing,
            sharers_that_die_together,
            a_sharer_that_is_not_followed,
        ],
    )
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];
const SHARED: [&str; 2] = [
    "1 LISTEN held shared_table holder",
    "2 ESTABLISHED held shared_table holder",
];

#[track_caller]
fn is_held_by(report: &Report, pid: u32) {
    report.shows(&SHARED);
    for socket in report.sockets() {
        let holder = json!({"pid": pid, "comm": "victim", "fd": socket["fds"][0], "how": "shared_table"});
        assert_eq!(socket["holders"], json!([holder]), "{socket}");
    }
}

fn a_sharer_that_dies_later_releases_what_it_held() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let child = victim.forks("fork-files");
    let status = victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    is_held_by(&report, child);
    death::agrees_with_wait(&report, status);
    victim.kill_child(child);
    let report = tracer.report();
    tracer.finishes();
    assert_eq!(report["process"]["pid"], child, "{report}");
    report.shows(&IDLE);
}

fn a_sharer_that_dies_first_releases_nothing() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let child = victim.forks("fork-files");
    victim.kill_child(child);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"], child, "{report}");
    is_held_by(&report, victim.pid());
    let status = victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
}

fn sharers_that_die_together() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let child = victim.forks("fork-files");
    victim.group_killed();
    let reports = tracer.reports(2);
    tracer.finishes();
    let pids: Vec<_> = reports.keys().copied().collect();
    assert!(pids.contains(&child), "{pids:?}");
    let reports = death::in_order(reports);
    reports[1].shows(&IDLE);
    // On a slow machine the first one is reported while the other has not come to its exit yet.
    if reports[0]["summary"]["held"] == 3 {
        reports[0].reads(&SHARED);
    } else {
        reports[0].shows(&IDLE);
    }
}

/// Nothing was seen of how the child came about, and its death is none that is reported. The sockets are free
/// after it.
fn a_sharer_that_is_not_followed() {
    sysctl("ipv4/tcp_fin_timeout", 1);
    let (mut victim, _peers) = Victim::serving("4", 2);
    let child = victim.forks("fork-files");
    let mut tracer = Tracer::attach(victim.pid(), &["--no-follow", "--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    is_held_by(&report, child);
    victim.kill_child(child);
    for _ in report.sockets() {
        tracer.record("freed");
    }
    tracer.finishes();
}
