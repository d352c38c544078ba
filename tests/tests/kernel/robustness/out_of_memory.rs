//! Deaths by the kernel's OOM killer, in a control group that has little memory.

use libtest_mimic::Trial;
use sockleak_tests::cgroup::SmallMemory;
use sockleak_tests::death;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::MemoryCgroup],
        named![
            the_oom_killer_is_told_from_a_sigkill,
            who_shares_the_memory_dies_with_it
        ],
    )
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

fn the_oom_killer_is_told_from_a_sigkill() {
    let group = SmallMemory::make().expect("it was possible before");
    let (mut victim, _peers) = Victim::serving("4", 2);
    group.take(victim.pid());
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let status = victim.dies("oom");
    let report = tracer.report();
    tracer.finishes();
    assert_eq!(group.oom_kills(), 1);
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
    let death = &report["death"];
    assert_eq!(
        (&death["signal_name"], &death["oom"]),
        (&"KILL".into(), &true.into()),
        "{death}"
    );
    assert!(death["sent_by"].is_null(), "{death}");
}

/// The kernel marks only the one that it chose (`mark_oom_victim`), and nobody has sent the others their signal.
fn who_shares_the_memory_dies_with_it() {
    let group = SmallMemory::make().expect("it was possible before");
    let (mut victim, _peers) = Victim::serving("4", 2);
    group.take(victim.pid());
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let child = victim.forks("child shares-memory");
    let status = victim.dies("oom");
    let reports = tracer.reports(2);
    tracer.finishes();
    death::agrees_with_wait(&reports[&victim.pid()], status);
    let mut chosen = 0;
    for pid in [victim.pid(), child] {
        let report = &reports[&pid];
        assert_eq!(report["death"]["signal"], 9, "{report}");
        assert!(report["death"]["sent_by"].is_null(), "{report}");
        chosen += u64::from(report["death"]["oom"] == true);
    }
    assert_eq!(chosen, 1, "the kernel chose one");
    // The other one may be on its way when the first one is reported.
    death::in_order(reports)[1].shows(&IDLE);
}
