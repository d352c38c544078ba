//! Sockets of which no process has a descriptor, and that the kernel holds all the same.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use sockleak_tests::judge;
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::peer::Peer;
use sockleak_tests::record;
use sockleak_tests::report::Report;
use sockleak_tests::seccomp;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            a_message_in_flight_holds_until_it_is_destroyed,
            where_proc_is_searched_a_process_may_be_closed_to_it,
            in_text_it_is_held_by_the_kernel,
        ],
    );
    tests.extend(sandboxed(
        &[Need::IoUring, Need::PidfdGetfd],
        named![another_process_registered_it_with_io_uring],
    ));
    tests.extend(sandboxed(
        &[Need::IoUring],
        named![its_own_ring_is_closed_after_the_reaping],
    ));
    tests.extend(sandboxed(
        &[Need::DirectDescriptors],
        named![a_direct_descriptor_is_in_no_table],
    ));
    tests
}

/// The report is about a listener that the kernel holds, or another process whose descriptors may not be read.
#[track_caller]
fn is_in_kernel(report: &Report, is_certain: bool) {
    let why = if is_certain { "in_kernel" } else { "unknown" };
    report.shows(&[&format!("1 LISTEN held {why} holder")]);
    assert_eq!(report.listener()["holders"], json!([]), "{report}");
    assert_eq!(
        is_blind_for(report, "descriptors_unreadable"),
        !is_certain,
        "{report}"
    );
}

/// The report says that this could not be seen.
fn is_blind_for(report: &Report, id: &str) -> bool {
    record::blind_spots(&report["blind"]).contains(&id)
}

/// The listener was held, and is free.
#[track_caller]
fn is_freed(tracer: &mut Tracer, port: u16) {
    let freed = tracer.record("freed");
    assert_eq!(
        (&freed["lport"], &freed["free_rule"]),
        (&port.into(), &"holder".into()),
        "{freed}"
    );
    assert!(judge::of_port(port).is_empty(), "the kernel still has {freed}");
    tracer.finishes();
}

/// SCM_RIGHTS that nobody received.
fn in_flight() -> (Victim, u32, u16) {
    let mut victim = Victim::start();
    let courier = victim.forks("courier ignores");
    let port = victim.listen("4").port();
    victim.does("pass");
    (victim, courier, port)
}

fn a_message_in_flight_holds_until_it_is_destroyed() {
    let (mut victim, courier, port) = in_flight();
    let mut tracer = Tracer::attach(victim.pid(), &["--once", "--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    is_in_kernel(&report, true);
    victim.kill_child(courier);
    is_freed(&mut tracer, port);
}

/// The iterator over descriptors asks nobody for the right to look. Without it one process may be closed to the search.
fn where_proc_is_searched_a_process_may_be_closed_to_it() {
    let (mut victim, courier, port) = in_flight();
    let options = &["--once", "--wait"];
    let mut tracer = Tracer::attach_without(seccomp::ITERATORS, victim.pid(), options);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    is_in_kernel(&report, judge::all_tables_are_readable());
    victim.kill_child(courier);
    is_freed(&mut tracer, port);
}

fn in_text_it_is_held_by_the_kernel() {
    let (mut victim, _courier, port) = in_flight();
    let mut tracer = Tracer::attach_for_text(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.status(), 0);
    let text = tracer.stdout();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("still held by the kernel"), "{text}");
    assert!(words.contains(&format!("LISTEN 127.0.0.1:{port}")), "{text}");
}

/// It closed its descriptor after it had registered the file.
fn another_process_registered_it_with_io_uring() {
    let mut victim = Victim::start();
    let port = victim.listen("4").port();
    let fd = victim.does("fd listener");
    let mut holder = Victim::start();
    holder.does(&format!("take {} {fd}", victim.pid()));
    holder.does("ring-register 0");
    holder.does("drop 0");
    assert_eq!(judge::socket_inodes(holder.pid()), [0_u64; 0]);
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    is_in_kernel(&report, true);
    assert!(!is_blind_for(&report, "io_uring"), "{report}");
    holder.killed_by(libc::SIGKILL);
    is_freed(&mut tracer, port);
}

/// A kworker closes what a ring held, when the process has been reaped already.
fn its_own_ring_is_closed_after_the_reaping() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    victim.does("ring-register listener");
    victim.does("ring-register 0");
    let settle = format!("{}ms", scaled(Duration::from_secs(1)).as_millis());
    let mut tracer = Tracer::attach(victim.pid(), &["--settle", &settle]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert!(is_blind_for(&report, "io_uring"), "{report}");
    tracer.finishes();
}

/// The connection never had a descriptor, so what it leaves belongs to nobody.
fn a_direct_descriptor_is_in_no_table() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peer = Peer::connect(address);
    victim.does("ring-accept");
    let listener_only = judge::socket_inodes(victim.pid()).len();
    assert_eq!(listener_only, 1, "the connection is in no table");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN closed listener now"]);
    assert!(is_blind_for(&report, "io_uring"), "{report}");
    assert_eq!(report.left_while_alive(), [""; 0], "{report}");
    wait_until("the kworker", || judge::count(address.port(), "FIN_WAIT2") == 1);
}
