//! What did not fit, into the ring or into the maps: it is counted and said, and the rest is right.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use sockleak_tests::fdinfo;
use sockleak_tests::inventory::Inventory;
use sockleak_tests::judge;
use sockleak_tests::programs;
use sockleak_tests::report::{Report, number};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(&[], named![descriptors_beyond_max_sockets]);
    tests.extend(sandboxed(
        &[Need::SomeDescriptors],
        named![
            events_that_do_not_fit_into_the_ring,
            forks_that_do_not_fit_into_the_ring,
        ],
    ));
    tests.extend(sandboxed(
        &[Need::NoOthers, Need::SomeDescriptors],
        named![more_sockets_than_an_old_kernel_has_memory_for],
    ));
    tests.extend(sandboxed(
        &[Need::NoOthers],
        named![
            three_inventories_for_which_the_maps_are_too_small,
            what_did_not_fit_is_said,
        ],
    ));
    tests
}

/// How often at most the kernel skipped one of sockleak's programs, each of which counts as a lost event too. Before
/// 5.12 it does not tell.
fn recursion_misses(tracer: &Tracer) -> u64 {
    let folder = format!("/proc/{}/fdinfo", tracer.pid());
    let files = fs::read_dir(folder).expect("it lives").flatten();
    let misses = |info: String| -> Option<u64> {
        let count = fdinfo::value(&info, "recursion_misses")?;
        Some(count.parse().expect("a number"))
    };
    files
        .filter_map(|file| misses(fs::read_to_string(file.path()).ok()?))
        .sum()
}

/// What arrived and what was lost is what was made, before a death and after it, and neither what was closed nor what
/// was open depends on it.
fn events_that_do_not_fit_into_the_ring() {
    const FIRST: u64 = 2_000;
    const SECOND: u64 = 1_500;
    let mut victim = Victim::start();
    let mut bystander = Victim::start();
    victim.does("pairs 5000 127.0.0.1");
    // It has room for 56 transitions of 72 bytes.
    let mut tracer = Tracer::attach_all([victim.pid(), bystander.pid()], &["--ring-size", "4096"]);

    // Each end of a connection goes to FIN_WAIT1 or LAST_ACK as it is closed.
    tracer.stops();
    victim.does(&format!("close {FIRST}"));
    tracer.signal(libc::SIGCONT);
    // One that neither arrives nor is told as lost is waited for in vain.
    while arrived(&tracer) + told(&tracer) < FIRST {
        tracer.passes();
    }
    let lost_alive = told(&tracer);
    let misses = recursion_misses(&tracer);
    assert!((1..FIRST + misses).contains(&lost_alive), "{lost_alive} lost");

    tracer.stops();
    victim.does(&format!("close {SECOND}"));
    let known = Inventory::of(victim.pid());
    victim.dies("segv");
    tracer.signal(libc::SIGCONT);
    let report = tracer.report_with_losses();
    known.is_all_of(&report);
    report.agrees_with_the_kernel();
    let lost = number(&report["lost"], "events");
    assert!(lost > 0, "none of them was noticed before the death");
    let misses = recursion_misses(&tracer);
    let told = told(&tracer) - lost_alive;
    assert!(
        (lost..=lost + misses).contains(&told),
        "{told} told, {lost} reported"
    );
    let arrived = arrived(&tracer);
    let made = FIRST + SECOND;
    // The 24 bytes of the death itself may fit where no transition does.
    assert!(
        (made..=made + 1 + misses).contains(&(arrived + lost_alive + lost)),
        "{made} made, {arrived} arrived, {lost_alive} and {lost} lost, {misses} skipped"
    );

    let groups = report["left_while_alive"].as_array().expect("a list").iter();
    let closed: u64 = groups.map(|group| number(group, "count")).sum();
    // One for each pair, and another where both ends sent their FIN before either read the other's: the table tells.
    let pairs = (FIRST + SECOND) / 2;
    assert!((pairs..=2 * pairs).contains(&closed), "{closed} of {pairs} pairs");
    let left = closed + number(&report["summary"], "time_wait");
    assert_eq!(left, judge::sockets().len() as u64);
    bystander.killed_by(libc::SIGKILL);
    assert_eq!(
        tracer.report_with_losses()["lost"]["events"],
        0,
        "since its own death"
    );
    tracer.finishes();
}

/// The maps know a child whose fork was lost, be it alive or dead by the time that this is noticed.
fn forks_that_do_not_fit_into_the_ring() {
    const DEAD: u64 = 300;
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &["--ring-size", "4096"]);
    tracer.stops();
    let dead = victim.does(&format!("child killed-at-once {DEAD}"));
    let alive = victim.forks("fork");
    tracer.signal(libc::SIGCONT);
    let pids = dead
        .split(' ')
        .map(|pid| pid.parse::<u32>().expect("a process id"));
    let reports = tracer.reports_with_losses(pids.clone().count());
    assert!(pids.clone().all(|pid| reports.contains_key(&pid)));
    // A whole ring of nothing but forks would not have had room for them.
    assert!(told(&tracer) > DEAD, "{} lost", told(&tracer));
    let forks = tracer
        .passed("process")
        .filter(|record| record["event"] == "fork");
    let mut children: Vec<u64> = forks.map(|record| number(record, "child")).collect();
    children.sort_unstable();
    let mut known: Vec<u64> = pids.chain([alive]).map(u64::from).collect();
    known.sort_unstable();
    assert_eq!(children, known);

    victim.kill_child(alive);
    let report = tracer.report_with_losses();
    assert_eq!(report["process"]["pid"], alive, "{report}");
    assert_eq!(report["process"]["comm"], "victim", "{report}");
    assert_eq!(report["death"]["signal"], 9, "{report}");
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.report_with_losses()["process"]["pid"], victim.pid());
    tracer.finishes();
}

fn arrived(tracer: &Tracer) -> u64 {
    tracer.passed("transition").count() as u64
}

fn told(tracer: &Tracer) -> u64 {
    tracer.passed("lost").map(|record| number(record, "events")).sum()
}

/// How many descriptors a process has beyond those of its first sockets.
fn descriptors_beyond(pid: u32, sockets: usize) -> u64 {
    let mut of_sockets: Vec<_> = judge::socket_descriptors(pid)
        .into_iter()
        .map(|(fd, _)| fd)
        .collect();
    of_sockets.sort_unstable();
    let last = of_sockets[sockets - 1];
    let names = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it lives")
        .flatten();
    let numbers = names.filter_map(|name| name.file_name().to_str()?.parse::<u64>().ok());
    numbers.filter(|fd| *fd > last).count() as u64
}

fn descriptors_beyond_max_sockets() {
    let mut victim = Victim::start();
    victim.does("pairs 500 127.0.0.1");
    let known = Inventory::of(victim.pid());
    let beyond = descriptors_beyond(victim.pid(), 300);
    assert!(beyond >= 1_001 - 300);
    let mut tracer = Tracer::attach(victim.pid(), &["--max-sockets", "300"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report_with_losses();
    assert_eq!(known.told_by(&report).len(), 300);
    assert_eq!(lost(&report), (0, beyond));
    report.agrees_with_the_kernel();
    tracer.finishes();
}

/// What of the inventory did not fit, and how many descriptors were not looked at.
fn lost(report: &Report) -> (u64, u64) {
    let lost = &report["lost"];
    (number(lost, "inventory"), number(lost, "slots"))
}

/// All die before one is reported: both maps are of the size that one of them may have.
fn three_inventories_for_which_the_maps_are_too_small() {
    let mut victims = [Victim::start(), Victim::start(), Victim::start()];
    let known = victims.each_mut().map(|victim| {
        victim.does("pairs 200 127.0.0.1");
        Inventory::of(victim.pid())
    });
    let mut tracer = Tracer::attach_all(victims.iter().map(Victim::pid), &["--max-sockets", "500"]);
    tracer.stops();
    for victim in &mut victims {
        victim.killed_by(libc::SIGKILL);
    }
    tracer.signal(libc::SIGCONT);
    let reports = tracer.reports_with_losses(3);
    for ((victim, known), is_complete) in victims.iter().zip(&known).zip([true, true, false]) {
        let report = &reports[&victim.pid()];
        assert_eq!(known.count(), 401);
        // Where a socket of anybody else gets the memory of one, its record is set aside and makes room.
        let (missing, slots) = lost(report);
        assert_eq!((missing == 0, slots), (is_complete, 0));
        assert_eq!(known.told_by(report).len() as u64 + missing, 401);
        report.agrees_with_the_kernel();
    }
    tracer.finishes();
}

/// Before 6.1 the maps have all their memory from the beginning: for 4,096 records and what was open then, twice.
fn more_sockets_than_an_old_kernel_has_memory_for() {
    let types = fs::read("/sys/kernel/btf/vmlinux").expect("it is there");
    let allocator = b"\0bpf_mem_alloc\0";
    let allocates = types.windows(allocator.len()).any(|window| window == allocator);
    let mut victim = Victim::start();
    let mut tracer = Tracer::attach(victim.pid(), &["--max-sockets", "10000"]);
    victim.does("pairs 4500 127.0.0.1");
    let known = Inventory::of(victim.pid());
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report_with_losses();
    let (missing, slots) = lost(&report);
    assert_eq!((missing == 0, slots), (allocates, 0), "{missing} are missing");
    assert_eq!(known.count(), 9_001);
    assert_eq!(known.told_by(&report).len() as u64 + missing, 9_001);
    report.agrees_with_the_kernel();
    tracer.finishes();
}

fn what_did_not_fit_is_said() {
    let mut victims = [Victim::start(), Victim::start(), Victim::start()];
    for victim in &mut victims {
        victim.does("pairs 20 127.0.0.1");
    }
    let pids = victims.each_ref().map(|victim| victim.pid().to_string());
    let beyond = descriptors_beyond(victims[0].pid(), 30);
    let mut command = Command::new(programs::sockleak());
    command.args(["--pid", &pids.join(","), "--max-sockets", "30"]);
    let mut tracer = Tracer::spawn(&mut command);
    tracer.says_on_stderr(&pids[2]);
    tracer.stops();
    for victim in &mut victims {
        victim.killed_by(libc::SIGKILL);
    }
    tracer.signal(libc::SIGCONT);
    assert_eq!(tracer.status(), 0);
    let text = tracer.stdout();
    assert!(!text.contains("every socket is free"), "{text}");
    for words in [
        &format!("{beyond} descriptors were not looked at (--max-sockets)"),
        "sockets more did not fit into the inventory (--max-sockets)",
        "not recorded",
        "sockets: what became of them cannot be told",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
}
