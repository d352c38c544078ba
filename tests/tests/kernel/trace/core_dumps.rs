//! Deaths that write a core, may not write one, or do not get to the end of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net::{self, Family};
use sockleak_tests::peer::Peer;
use sockleak_tests::tracer::{Tracer, run};
use sockleak_tests::victim::Victim;
use sockleak_tests::{death, judge, programs, record};
use tempfile::TempDir;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::LocalCoreFiles, Need::CoreFiles],
        named![
            every_signal_that_dumps_core,
            a_core_dump_of_many_threads,
            a_limit_of_zero_forbids_the_dump,
            a_process_that_is_not_dumpable,
        ],
    );
    tests.extend(sandboxed(
        &[Need::OwnMachine, Need::CoreFiles],
        named![
            a_dump_keeps_every_socket_open,
            sigkill_during_a_dump_hides_neither_signal
        ],
    ));
    tests
}

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Who reads or sets the pattern of the whole host, or relies on it.
static CORE_PATTERN: Mutex<()> = Mutex::new(());

fn core_pattern() -> MutexGuard<'static, ()> {
    CORE_PATTERN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Core files land in the working directory of the process.
pub fn are_local() -> bool {
    let _unchanged = core_pattern();
    fs::read_to_string(PATTERN).is_ok_and(|pattern| pattern.starts_with("core"))
}

/// A victim may write one: it makes the hard limit infinite, which takes CAP_SYS_RESOURCE if it is not.
pub fn are_allowed() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: Both calls use one rlimit, which outlives them. The limit that counts stays as it is.
    unsafe {
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
        limit.rlim_max = libc::RLIM_INFINITY;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) == 0
    }
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

/// A server that may dump its core into a folder of its own.
struct Server {
    victim: Victim,
    port: u16,
    _peers: Vec<Peer>,
    folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the core");
        let mut victim = Victim::spawn(Command::new(programs::victim()).current_dir(&folder));
        let address = victim.listen("4");
        let peers = victim.accept(address, 1);
        victim.does("dump-core");
        Self {
            victim,
            port: address.port(),
            _peers: peers,
            folder,
        }
    }

    fn has_dumped(&self) -> bool {
        fs::read_dir(&self.folder).expect("it is there").count() > 0
    }
}

const DUMPING: [i32; 10] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];

fn every_signal_that_dumps_core() {
    let _unchanged = core_pattern();
    let mut servers = DUMPING.map(|_| Server::start());
    for server in &mut servers {
        server.victim.does("default-signals");
    }
    let mut tracer = Tracer::attach_all(servers.iter().map(|server| server.victim.pid()), &[]);
    let dying = servers.iter_mut().zip(DUMPING);
    let statuses: Vec<_> = dying
        .map(|(server, signal)| server.victim.killed_by(signal))
        .collect();
    let reports = tracer.reports(servers.len());
    tracer.finishes();
    for (server, status) in servers.iter().zip(statuses) {
        let report = &reports[&server.victim.pid()];
        report.shows(&IDLE);
        death::agrees_with_wait(report, status);
        assert_eq!(report["death"]["core_dumped"], server.has_dumped(), "{report}");
        assert!(report["death"]["core_dump_ms"].is_u64(), "{report}");
        assert_eq!(report["death"]["sent_by"]["pid"], process::id(), "{report}");
    }
}

/// One server dies in that way, watched; the report holds against wait() and against the folder.
#[track_caller]
fn death_of(mut server: Server, way: &str, dumps: bool) {
    let mut tracer = Tracer::attach(server.victim.pid(), &[]);
    server.victim.tell(way);
    let status = server.victim.end();
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    death::agrees_with_wait(&report, status);
    death::nobody_sent_it(&report);
    assert_eq!(
        (status.core_dumped(), server.has_dumped()),
        (dumps, dumps),
        "{report}"
    );
    assert_eq!(report["death"]["core_dump_ms"].is_u64(), dumps, "{report}");
}

/// The last thread is a sibling of the one that dumps, whose own code says nothing of the dump (trap 4).
fn a_core_dump_of_many_threads() {
    let _unchanged = core_pattern();
    let mut server = Server::start();
    server.victim.does("threads 40");
    death_of(server, "die-in-thread segv", true);
}

fn a_limit_of_zero_forbids_the_dump() {
    let _unchanged = core_pattern();
    let mut server = Server::start();
    server.victim.does("limit-core 0");
    death_of(server, "die segv", false);
}

fn a_process_that_is_not_dumpable() {
    let _unchanged = core_pattern();
    let mut server = Server::start();
    server.victim.does("not-dumpable");
    death_of(server, "die segv", false);
}

/// While this exists, cores go to a program that takes nothing before it is told to.
struct SlowCores {
    before: String,
    folder: TempDir,
    _lock: MutexGuard<'static, ()>,
}

impl SlowCores {
    fn set() -> Self {
        let lock = core_pattern();
        let folder = tempfile::tempdir().expect("a folder for the helper");
        let helper = folder.path().join("helper");
        symlink(programs::victim(), &helper).expect("a new name");
        let before = fs::read_to_string(PATTERN).expect("the kernel has it");
        let slow = Self {
            before,
            folder,
            _lock: lock,
        };
        fs::write(PATTERN, format!("|{} swallow-core", helper.display())).expect("a machine of its own");
        slow
    }

    /// The helper reads on, and the dump comes to its end.
    fn release(&self) {
        fs::write(self.folder.path().join("go"), "").expect("the folder is writable");
    }
}

impl Drop for SlowCores {
    fn drop(&mut self) {
        self.release();
        fs::write(PATTERN, self.before.trim_end()).expect("a machine of its own");
    }
}

#[track_caller]
fn wait_until_dumping(pid: u32) {
    let status = Path::new("/proc").join(pid.to_string()).join("status");
    wait_until("the dump", || {
        fs::read_to_string(&status).is_ok_and(|status| status.contains("CoreDumping:\t1"))
    });
}

/// The port is in use for as long as the dump takes, and the report says how long that was (trap 7).
fn a_dump_keeps_every_socket_open() {
    let slow = SlowCores::set();
    let mut server = Server::start();
    let pid = server.victim.pid();
    let port = server.port;
    let mut tracer = Tracer::attach(pid, &[]);
    server.victim.tell("die segv");
    wait_until_dumping(pid);
    let began = Instant::now();
    assert_eq!(judge::count(port, "ESTABLISHED"), 1);
    let restart = net::socket(Family::V4.address(port), 0, 0).expect("a socket");
    let refused = net::bind(&restart, Family::V4.address(port)).expect_err("the port is in use");
    assert_eq!(refused.raw_os_error(), Some(libc::EADDRINUSE));
    let told = run(["port", &port.to_string(), "-ojson"]);
    assert_eq!(told.status, 1, "{}", told.stderr);
    let told = record::of(&told.stdout);
    let own = |socket: &&Value| socket["netns"] == told["netns"];
    for socket in told["sockets"].as_array().expect("a list").iter().filter(own) {
        let holder = &socket["holders"][0];
        assert_eq!(
            (&holder["pid"], &holder["dumping_core"]),
            (&pid.into(), &true.into()),
            "{told:#}"
        );
    }
    let seen = began.elapsed();
    slow.release();
    let status = server.victim.end();
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    assert!(status.core_dumped(), "{status}");
    death::agrees_with_wait(&report, status);
    let told = report["death"]["core_dump_ms"].as_u64().expect("a dump");
    assert!(u128::from(told) >= seen.as_millis(), "{report}");
}

/// wait() tells of the SIGKILL alone; the report also keeps what the process had died of (trap 6).
fn sigkill_during_a_dump_hides_neither_signal() {
    let _slow = SlowCores::set();
    let mut server = Server::start();
    let pid = server.victim.pid();
    let mut tracer = Tracer::attach(pid, &[]);
    server.victim.tell("die segv");
    wait_until_dumping(pid);
    let status = server.victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    assert!(!status.core_dumped(), "{status}");
    let death = &report["death"];
    assert_eq!(death["cause"], "signal", "{death}");
    assert_eq!(
        (&death["signal"], &death["dump_interrupted"]),
        (&9.into(), &11.into()),
        "{death}"
    );
    assert_eq!(death["core_dumped"], false, "{death}");
    assert_eq!(death["sent_by"]["pid"], process::id(), "{death}");
    assert!(death["core_dump_ms"].is_u64(), "{death}");
}
