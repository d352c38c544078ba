//! Limits of the whole machine: how large an fd table may be, how many orphans there may be.

use std::os::fd::AsRawFd as _;
use std::{fs, io, thread};

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::net::checked;
use sockleak_tests::peer::Peer;
use sockleak_tests::sandbox;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(&[], named![the_last_descriptor_that_is_allowed]);
    tests.extend(sandboxed(
        &[Need::OwnMachine],
        named![
            descriptors_beyond_the_walk_are_counted,
            too_many_orphans_are_reset
        ],
    ));
    tests
}

/// A setting of the whole machine, which is as before when the test ends.
struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    #[track_caller]
    fn change(path: &'static str, value: &str) -> Self {
        let before = outside(|| {
            let before = fs::read_to_string(path)?;
            fs::write(path, value)?;
            Ok(before)
        });
        let before = before.expect("the setting can be changed");
        Self { path, before }
    }
}

/// Works in the first network namespace, which alone has the settings of the whole machine.
fn outside<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = sandbox::outside();
    let inside = || {
        // SAFETY: setns takes two integers; it changes the namespace of this thread alone.
        checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join().expect("it does not panic"))
}

impl Drop for Setting {
    fn drop(&mut self) {
        outside(|| fs::write(self.path, &self.before)).expect("the setting can be changed back");
    }
}

/// The walk covers a table as large as the limit allows, most of which is empty.
fn the_last_descriptor_that_is_allowed() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let last = victim.does("dup-to last 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    let has_it = |socket: &&&serde_json::Value| {
        let fds = socket["fds"].as_array().into_iter().flatten();
        fds.map(ToString::to_string).any(|fd| fd == last)
    };
    assert_eq!(report.in_state("ESTABLISHED").iter().filter(has_it).count(), 1);
}

/// A table of two million slots, of which the walk looks at the first half.
fn descriptors_beyond_the_walk_are_counted() {
    let _raised = Setting::change("/proc/sys/fs/nr_open", "2097152");
    let (mut victim, _peers) = Victim::serving("4", 2);
    victim.does("dup-to 2000000 0");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.reads(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report["lost"]["slots"], 1 << 20, "{report}");
}

/// With more orphans than `tcp_max_orphans` the kernel resets whatever would become one (`tcp_check_oom`).
fn too_many_orphans_are_reset() {
    let (mut victim, peers) = Victim::serving("4", 3);
    // Without an answer to its FIN a connection stays one.
    peers.iter().for_each(Peer::cut_off);
    let _lowered = Setting::change("/proc/sys/net/ipv4/tcp_max_orphans", "0");
    let aborts = judge::netstat("TCPAbortOnMemory");
    // 5.10 sees so few orphans only when it retransmits.
    let mut tracer = Tracer::attach(victim.pid(), &["--settle", "1s"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "3 ESTABLISHED reset orphan_limit now",
    ]);
    assert_eq!(judge::netstat("TCPAbortOnMemory") - aborts, 3);
}
