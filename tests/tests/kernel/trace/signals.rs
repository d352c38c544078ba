//! Every kind of signal that ends a process, from another process and from the kernel.

use std::fs;
use std::process;

use libtest_mimic::Trial;
use serde_json::json;
use sockleak_tests::death;
use sockleak_tests::peer::Peer;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            every_signal_that_a_process_sends,
            every_signal_that_the_kernel_sends,
            an_earlier_signal_that_was_handled_is_not_blamed,
        ],
    )
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

/// Those whose default action ends the process (signal(7)).
const FATAL: [(i32, &str); 23] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGKILL, "KILL"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGPIPE, "PIPE"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGSTKFLT, "STKFLT"),
    (libc::SIGXCPU, "XCPU"),
    (libc::SIGXFSZ, "XFSZ"),
    (libc::SIGVTALRM, "VTALRM"),
    (libc::SIGPROF, "PROF"),
    (libc::SIGIO, "IO"),
    (libc::SIGPWR, "PWR"),
    (libc::SIGSYS, "SYS"),
];

/// One of several processes that die in the same trace.
struct Server {
    victim: Victim,
    _peers: Vec<Peer>,
}

impl Server {
    fn start() -> Self {
        let (victim, peers) = Victim::serving("4", 1);
        Self {
            victim,
            _peers: peers,
        }
    }
}

fn attach(servers: &[Server]) -> Tracer {
    Tracer::attach_all(servers.iter().map(|server| server.victim.pid()), &[])
}

fn every_signal_that_a_process_sends() {
    let named = FATAL.map(|(signal, name)| (signal, json!(name)));
    let real_time = [libc::SIGRTMIN(), libc::SIGRTMAX()].map(|signal| (signal, json!(null)));
    let kinds: Vec<_> = named.into_iter().chain(real_time).collect();
    let mut servers: Vec<_> = kinds.iter().map(|_| Server::start()).collect();
    for server in &mut servers {
        server.victim.does("default-signals");
    }
    let mut tracer = attach(&servers);
    let dying = servers.iter_mut().zip(&kinds);
    let statuses: Vec<_> = dying
        .map(|(server, (signal, _))| server.victim.killed_by(*signal))
        .collect();
    let reports = tracer.reports(kinds.len());
    tracer.finishes();
    let own_name = fs::read_to_string("/proc/thread-self/comm").expect("the name of the thread");
    let sender = json!({"pid": process::id(), "comm": own_name.trim_end()});
    for ((server, (_, name)), status) in servers.iter().zip(&kinds).zip(statuses) {
        let report = &reports[&server.victim.pid()];
        report.shows(&IDLE);
        death::agrees_with_wait(report, status);
        assert_eq!(report["death"]["signal_name"], *name, "{report}");
        assert_eq!(report["death"]["sent_by"], sender, "{report}");
        assert_eq!(report["death"]["oom"], false, "{report}");
    }
}

/// An error of the program is answered by the kernel, in whose name nobody must be blamed.
fn every_signal_that_the_kernel_sends() {
    let mut ways = vec![
        ("segv", "SEGV"),
        ("bus", "BUS"),
        ("pipe", "PIPE"),
        ("alrm", "ALRM"),
        ("xfsz", "XFSZ"),
        ("seccomp process", "SYS"),
        ("seccomp thread", "SYS"),
    ];
    if cfg!(target_arch = "x86_64") {
        ways.extend([
            ("instruction ill", "ILL"),
            ("instruction trap", "TRAP"),
            ("instruction fpe", "FPE"),
        ]);
    }
    let mut servers: Vec<_> = ways.iter().map(|_| Server::start()).collect();
    let mut tracer = attach(&servers);
    let dying = servers.iter_mut().zip(&ways);
    let statuses: Vec<_> = dying.map(|(server, (way, _))| server.victim.dies(way)).collect();
    let reports = tracer.reports(ways.len());
    tracer.finishes();
    for ((server, (_, name)), status) in servers.iter().zip(&ways).zip(statuses) {
        let report = &reports[&server.victim.pid()];
        report.shows(&IDLE);
        death::agrees_with_wait(report, status);
        assert_eq!(report["death"]["signal_name"], *name, "{report}");
        death::nobody_sent_it(report);
    }
}

/// The runtime handles the first one, which comes from the test, and the second one is of the kernel.
fn an_earlier_signal_that_was_handled_is_not_blamed() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.signal(libc::SIGSEGV);
    victim.does("hello");
    let status = victim.dies("segv");
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
    death::nobody_sent_it(&report);
}
