//! What a trace that never ends takes: the same after a hundred thousand children as after the first ones.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use libtest_mimic::Trial;
use sockleak_tests::bpf_maps;
use sockleak_tests::limit::{scaled, wait_for};
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[Need::PidfdGetfd],
        named![long_a_hundred_thousand_children_leave_nothing_in_sockleak],
    )
}

/// Children until the first look, and in all. One of a hundred leaves sockets, and has a report.
const FIRST: usize = 20_000;
const ALL: usize = 100_000;
const WITH_SOCKETS: usize = 100;
/// So many come and go before their reports are read.
const AT_ONCE: usize = 2_000;
/// What the allocator may keep that nobody uses, in bytes.
const SLACK: u64 = 256 << 10;

/// What sockleak has.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    /// Entries of the maps, by id.
    entries: BTreeMap<u32, usize>,
}

impl Holdings {
    fn of(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
        Self {
            descriptors: descriptors.count(),
            entries: bpf_maps::entries(pid),
        }
    }
}

fn long_a_hundred_thousand_children_leave_nothing_in_sockleak() {
    let mut victim = Victim::start();
    let mut tracer = Tracer::attach(victim.pid(), &["--summary"]);
    let watching = bpf_maps::entries(tracer.pid());
    assert!(
        watching.values().any(|entries| *entries > 0),
        "the victim is in one of {watching:?}"
    );
    let mut come_and_go = |victim: &mut Victim, children: usize| {
        for _ in 0..children / AT_ONCE {
            victim.does(&format!("child come-and-go {AT_ONCE} {WITH_SOCKETS}"));
            for _ in 0..AT_ONCE / WITH_SOCKETS {
                tracer.record("report");
            }
        }
        // What only reports need was loaded after the beginning, and has maps of its own.
        wait_for(
            scaled(Duration::from_secs(60)),
            "the maps have what they had",
            || {
                let entries = bpf_maps::entries(tracer.pid());
                watching
                    .iter()
                    .all(|(map, count)| entries.get(map) == Some(count))
            },
        );
        (Holdings::of(tracer.pid()), resident(tracer.pid()))
    };
    let (first, after_first) = come_and_go(&mut victim, FIRST);
    let (last, after_all) = come_and_go(&mut victim, ALL - FIRST);
    assert_eq!(first, last);
    assert!(
        after_all <= after_first + SLACK,
        "{after_first} bytes after {FIRST} children, {after_all} after {ALL}"
    );
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.record("report")["death"]["signal"], libc::SIGKILL);
    tracer.finishes();
}

/// Bytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.expect("it has memory").trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().expect("a number") << 10
}
