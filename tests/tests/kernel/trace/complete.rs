//! Thousands of sockets that die at once: each is in a report, whatever the load.
//!
//! How many events are lost meanwhile depends on the machine, so no row asks for none.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::inventory::Inventory;
use sockleak_tests::judge::{self, Entry};
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::record;
use sockleak_tests::report::{Report, number};
use sockleak_tests::sandbox::sysctl;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::Descriptors],
        named![
            eighteen_thousand_sockets_of_one_process,
            eight_processes_that_have_all_their_descriptors,
        ],
    );
    tests.extend(sandboxed(
        &[Need::SomeDescriptors],
        named![
            more_time_waits_than_the_table_takes,
            a_tracer_that_is_stopped_during_the_crash,
            more_sockets_than_memory_was_allocated_for,
        ],
    ));
    tests.extend(sandboxed(
        &[],
        named![
            seven_hundred_sockets_of_two_processes,
            eight_workers_with_one_listener,
        ],
    ));
    tests
}

/// What the largest victim has.
pub const DESCRIPTORS: u64 = 20_000;

/// Victims with so many connections each to itself, at an address of its own, so that they share no ports.
#[track_caller]
fn paired<const VICTIMS: usize>(count: usize) -> [Victim; VICTIMS] {
    let mut victims = std::array::from_fn(|number| {
        let mut victim = Victim::start();
        let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number as u32);
        victim.tell(&format!("pairs {count} {address}"));
        victim
    });
    for victim in &mut victims {
        victim.answer();
    }
    victims
}

/// Options for a report that is made when a retransmitted FIN has arrived too: where a processor has too much to do,
/// loopback drops some.
fn settled() -> [&'static str; 2] {
    ["--settle", if is_slow() { "10s" } else { "1s" }]
}

/// Kills all of them, and waits for their ends when every one of them was.
#[track_caller]
fn kill_at_once(victims: &mut [Victim]) {
    for victim in &mut *victims {
        victim.signal(libc::SIGKILL);
    }
    for victim in victims {
        victim.end();
    }
}

/// The kernel's table once no FIN is on its way any more.
#[track_caller]
pub fn table_after_the_crash() -> Vec<Entry> {
    let mut table = Vec::new();
    wait_until("the end of every connection", || {
        table = judge::sockets();
        table.iter().all(|entry| entry.state == "TIME_WAIT")
    });
    judge::counts_timewaits(table.len());
    table
}

fn eighteen_thousand_sockets_of_one_process() {
    sysctl("ipv4/tcp_max_tw_buckets", 1 << 20);
    let [mut victim] = paired(9_000);
    let known = Inventory::of(victim.pid());
    assert_eq!(known.count(), 18_001);
    let mut tracer = Tracer::attach(victim.pid(), &settled());
    victim.dies("segv");
    let table = table_after_the_crash();
    let report = tracer.report_with_losses();
    known.is_all_of(&report);
    assert_eq!(report.in_state("ESTABLISHED").len(), 18_000);
    report.agrees_with(&table);
    assert!(table.len() >= 9_000, "a TIME_WAIT of each pair");
    assert_eq!(number(&report["summary"], "time_wait"), table.len() as u64);
    assert_eq!(judge::netstat("TCPTimeWaitOverflow"), 0);
    assert_eq!(report["death"]["signal"], libc::SIGSEGV);
    tracer.finishes();
}

/// Of what is too much for an emulated machine, a tenth.
fn as_many_as_fit(count: usize) -> usize {
    if is_slow() { count / 10 } else { count }
}

fn is_slow() -> bool {
    scaled(Duration::from_secs(1)) > Duration::from_secs(1)
}

fn eight_processes_that_have_all_their_descriptors() {
    let each = as_many_as_fit(9_990);
    sysctl("ipv4/tcp_max_tw_buckets", 1 << 20);
    let mut victims: [Victim; 8] = paired(each);
    let before = judge::sockets();
    let mut known: Vec<_> = victims
        .iter()
        .map(|victim| (victim.pid(), Inventory::in_table(victim.pid(), &before)))
        .collect();
    let mut tracer = Tracer::attach_all(victims.iter().map(Victim::pid), &settled());
    kill_at_once(&mut victims);
    let table = table_after_the_crash();
    let mut time_waits = 0;
    while !known.is_empty() {
        let report = tracer.report_with_losses();
        let place = known.iter().position(|(pid, _)| report["process"]["pid"] == *pid);
        let (_, known) = known.swap_remove(place.expect("one report of each"));
        assert_eq!(known.count(), 2 * each + 1);
        known.is_all_of(&report);
        assert_eq!(report.in_state("ESTABLISHED").len(), 2 * each);
        report.agrees_with(&table);
        time_waits += number(&report["summary"], "time_wait");
    }
    assert_eq!(time_waits, table.len() as u64);
    assert_eq!(judge::netstat("TCPTimeWaitOverflow"), 0);
    tracer.finishes();
}

/// Sockets of the report with that outcome and that reason.
fn count(report: &Report, outcome: &str, why: &str) -> u64 {
    let is_one = |socket: &&Value| socket["outcome"] == outcome && socket["why"] == why;
    report.sockets().iter().filter(is_one).count() as u64
}

/// The kernel counts for which sockets it had no TIME_WAIT, and each of them is told.
fn more_time_waits_than_the_table_takes() {
    sysctl("ipv4/tcp_max_tw_buckets", 1_000);
    let mut victims: [Victim; 2] = paired(2_250);
    let known = victims
        .each_ref()
        .map(|victim| (victim.pid(), Inventory::of(victim.pid())));
    let mut tracer = Tracer::attach_all(victims.iter().map(Victim::pid), &settled());
    kill_at_once(&mut victims);
    let table = table_after_the_crash();
    let (mut time_waits, mut overflown, mut lost) = (0, 0, 0);
    for _ in &known {
        let report = tracer.report_with_losses();
        let is_its = |(pid, _): &&(u32, _)| report["process"]["pid"] == *pid;
        let (_, known) = known.iter().find(is_its).expect("a report of each");
        known.is_all_of(&report);
        report.agrees_with(&table);
        assert_eq!(
            count(&report, "closed", "unknown"),
            0,
            "the full table explains each"
        );
        time_waits += number(&report["summary"], "time_wait");
        overflown += count(&report, "closed", "time_wait_overflow");
        lost += number(&report["lost"], "events");
    }
    assert_eq!(time_waits, table.len() as u64);
    let missing = judge::netstat("TCPTimeWaitOverflow");
    assert!(missing > 0, "the table was full");
    assert!(
        overflown <= missing && missing <= overflown + lost,
        "{overflown} of {missing} missing TIME_WAITs are told, {lost} events lost"
    );
    tracer.finishes();
}

/// The maps keep what the tracer cannot see meanwhile.
fn a_tracer_that_is_stopped_during_the_crash() {
    let [mut victim] = paired(3_000);
    let known = Inventory::of(victim.pid());
    let mut tracer = Tracer::attach(victim.pid(), &settled());
    tracer.stops();
    victim.dies("segv");
    let table = table_after_the_crash();
    tracer.signal(libc::SIGCONT);
    let report = tracer.report_with_losses();
    known.is_all_of(&report);
    report.agrees_with(&table);
    assert_eq!(number(&report["summary"], "time_wait"), table.len() as u64);
    tracer.finishes();
}

/// Tracepoints may be preempted (7.0 and later): of processes that die together on one CPU the kernel then may skip every
/// copy of the exit hook for some.
pub fn preempts_programs() -> bool {
    let types = fs::read("/sys/kernel/btf/vmlinux").expect("it is there");
    // A member of `struct tp_transition_snapshot` (kernel/tracepoint.c).
    let name = b"\0srcu_gp\0";
    types.windows(name.len()).any(|window| window == name)
}

/// Each socket is in two inventories, of which only one can have its address in the map.
fn seven_hundred_sockets_of_two_processes() {
    let [mut victim] = paired(350);
    let child = victim.forks("fork");
    let table = judge::sockets();
    let known = [victim.pid(), child].map(|pid| (pid, Inventory::in_table(pid, &table)));
    let mut tracer = Tracer::attach(victim.pid(), &settled());
    victim.group_killed();
    let table = table_after_the_crash();
    let mut missed = 0;
    for _ in &known {
        let report = tracer.report_with_losses();
        let is_its = |(pid, _): &&(u32, _)| report["process"]["pid"] == *pid;
        let (_, known) = known.iter().find(is_its).expect("a report of each");
        if report["death"].is_null() && preempts_programs() {
            missed += 1;
            continue;
        }
        assert_eq!(known.count(), 701);
        known.is_all_of(&report);
        report.agrees_with(&table);
        if report["lost"]["events"] == 0 {
            assert_eq!(number(&report["summary"], "time_wait"), table.len() as u64);
        }
    }
    assert!(missed < known.len(), "both were missed");
    tracer.finishes();
}

/// When the tracer began there were next to none, and most are in two inventories. What is free is another socket's soon,
/// before the tracer looks.
fn more_sockets_than_memory_was_allocated_for() {
    sysctl("ipv4/tcp_max_tw_buckets", 1 << 20);
    let [mut victim, mut small, mut foreign] = std::array::from_fn(|_| Victim::start());
    let mut tracer = Tracer::attach_all([victim.pid(), small.pid()], &settled());
    victim.does("pairs 2500 127.0.0.1");
    small.does("pairs 50 127.0.0.2");
    let child = victim.forks("fork");
    let table = judge::sockets();
    let known = [(victim.pid(), 5_001), (child, 5_001), (small.pid(), 101)];
    let known = known.map(|(pid, sockets)| (pid, sockets, Inventory::in_table(pid, &table)));
    tracer.stops();
    victim.group_killed();
    small.killed_by(libc::SIGKILL);
    let table = table_after_the_crash();
    foreign.does("pairs 500 127.0.0.3");
    foreign.killed_by(libc::SIGKILL);
    tracer.signal(libc::SIGCONT);
    let mut missed = 0;
    for _ in &known {
        let report = tracer.report_with_losses();
        let is_its = |(pid, ..): &&(u32, _, _)| report["process"]["pid"] == *pid;
        let (pid, sockets, known) = known.iter().find(is_its).expect("a report of each");
        if report["death"].is_null() && preempts_programs() {
            missed += u32::from(*pid != small.pid());
            continue;
        }
        assert_eq!(known.count(), *sockets);
        known.is_all_of(&report);
        report.agrees_with(&table);
        if report["lost"]["events"] == 0 {
            let is_followed = |socket: &Value| socket["transitions"] != json!([]);
            assert!(report.sockets().iter().all(is_followed), "{report}");
        }
    }
    assert!(missed < 2, "both of the family were missed");
    tracer.finishes();
}

/// The listener is in nine inventories at once, and each worker has ends of connections of the others.
fn eight_workers_with_one_listener() {
    let mut victim = Victim::start();
    victim.listen("4");
    let each = as_many_as_fit(200);
    victim.tell(&format!("paired-workers 8 {each}"));
    let mut pids: Vec<_> = (0..8).map(|_| victim.child_answers()).collect();
    pids.push(victim.pid());
    let table = judge::sockets();
    let known: Vec<_> = pids
        .into_iter()
        .map(|pid| (pid, Inventory::in_table(pid, &table)))
        .collect();
    let listener = table
        .iter()
        .find(|entry| entry.state == "LISTEN")
        .expect("one")
        .inode;
    let mut tracer = Tracer::attach(victim.pid(), &settled());
    victim.group_killed();
    let table = table_after_the_crash();
    let (mut time_waits, mut missed) = (0, 0);
    for _ in &known {
        let report = tracer.report_with_losses();
        let is_its = |(pid, _): &&(u32, _)| report["process"]["pid"] == *pid;
        let (_, known) = known.iter().find(is_its).expect("a report of each");
        if report["death"].is_null() && preempts_programs() {
            let blind = record::blind_spots(&report["blind"]);
            assert!(blind.contains(&"exit_unseen"), "{report}");
            missed += 1;
            continue;
        }
        known.is_all_of(&report);
        // The map of what is followed leads to one of nine records.
        let of_all = report.listener();
        assert_eq!(of_all["inode"], listener);
        if report["lost"]["events"] == 0 {
            let changes = of_all["transitions"].as_array().expect("a list");
            assert_eq!(changes.len(), 1, "{of_all}");
            assert_eq!(changes[0]["from"], "LISTEN", "{of_all}");
        }
        report.agrees_with(&table);
        time_waits += number(&report["summary"], "time_wait");
    }
    assert!(missed < known.len(), "all were missed");
    if missed == 0 {
        assert_eq!(time_waits, table.len() as u64);
    }
    tracer.finishes();
}
