//! Sockets whose memory the kernel gives to other sockets before they are reported.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::inventory::Inventory;
use sockleak_tests::judge;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::trace::complete::{preempts_programs, table_after_the_crash};
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::SomeDescriptors],
        named![each_of_two_processes_has_the_changes_of_its_sockets],
    )
}

/// Only the record of the process that died first has them, and that one moves while the tracer looks for it, because
/// another process opens sockets from the moment on at which the tracer sees the deaths.
fn each_of_two_processes_has_the_changes_of_its_sockets() {
    let [mut victim, mut foreign] = std::array::from_fn(|_| Victim::start());
    victim.does("pairs 2000 127.0.0.1");
    let child = victim.forks("fork");
    let table = judge::sockets();
    let known = [victim.pid(), child].map(|pid| (pid, Inventory::in_table(pid, &table)));
    let mut tracer = Tracer::attach(victim.pid(), &["--settle", "1ms"]);
    tracer.stops();
    victim.group_killed();
    table_after_the_crash();
    foreign.tell("pairs 4000 127.0.0.3");
    tracer.signal(libc::SIGCONT);
    let reports = tracer.reports_with_losses(known.len());
    foreign.answer();
    let mut missed = 0;
    for (pid, known) in &known {
        let report = &reports[pid];
        if report["death"].is_null() && preempts_programs() {
            missed += 1;
            continue;
        }
        assert_eq!(known.count(), 4_001);
        known.is_all_of(report);
        if report["lost"]["events"] == 0 {
            let is_followed = |socket: &&Value| socket["transitions"] != json!([]);
            let unknown: Vec<&Value> = report
                .sockets()
                .iter()
                .filter(|socket| !is_followed(socket))
                .collect();
            assert!(
                unknown.is_empty(),
                "{} without changes: {}",
                unknown.len(),
                unknown[0]
            );
        }
    }
    assert!(missed < known.len(), "both were missed");
    tracer.finishes();
}
