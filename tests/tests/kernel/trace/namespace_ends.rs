//! A namespace that ends with the process: its leftovers go with it, and sockleak does not keep it alive.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::thread;

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::net::checked;
use sockleak_tests::netns::Watch;
use sockleak_tests::peer::Peer;
use sockleak_tests::sandbox::short_fin_timeout;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::trace::countdown::kept;
use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            its_leftovers_are_freed_by_its_end,
            no_namespace_is_kept_after_a_report,
            a_descriptor_keeps_the_leftovers,
        ],
    )
}

/// Of include/uapi/asm-generic/socket.h.
const SO_NETNS_COOKIE: i32 = 71;

const LEFT: [&str; 3] = [
    "1 LISTEN closed listener now",
    "1 FIN_WAIT2 time_wait shutdown_before timewait_timer",
    "1 CLOSE_WAIT closed peer_closed_first now",
];

/// A victim that is alone in a namespace, where it leaves one TIME_WAIT: of its two ends one closes its side before.
fn hermit() -> Victim {
    let mut victim = Victim::start();
    victim.does("own-network");
    victim.listen("4");
    victim.does("connect self");
    victim.does("accept 1");
    victim.does("shutdown 0");
    victim.does("read 1");
    victim
}

/// The kernel has SO_NETNS_COOKIE, which came with 5.14.
fn namespaces_are_numbered() -> bool {
    let socket = UnixDatagram::unbound().expect("a socket");
    let mut number = [0_u8; 8];
    let mut length = 8;
    // SAFETY: The pointers are to eight bytes and to their number, which outlive the call.
    let result = unsafe {
        let (value, length) = (number.as_mut_ptr().cast(), &raw mut length);
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            value,
            length,
        )
    };
    result == 0
}

fn its_leftovers_are_freed_by_its_end() {
    let mut victim = hermit();
    let watch = Watch::of_process(victim.pid());
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    tracer.report().reads(&LEFT);
    let freed = tracer.record("freed");
    // Without a number of its own for each namespace, its inode may belong to the next one already.
    if namespaces_are_numbered() {
        assert_eq!(freed["free_rule"], "netns_gone", "{freed}");
    }
    tracer.finishes();
    watch.ends();
}

/// Another process is watched still, so sockleak goes on.
fn no_namespace_is_kept_after_a_report() {
    let mut victim = hermit();
    let (mut other, _peers) = Victim::serving("4", 1);
    let watch = Watch::of_process(victim.pid());
    let mut tracer = Tracer::start(["--pid", &format!("{},{}", victim.pid(), other.pid())]);
    tracer.watches();
    victim.killed_by(libc::SIGKILL);
    tracer.report().reads(&LEFT);
    watch.ends();
    other.killed_by(libc::SIGKILL);
    tracer.report().shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    tracer.finishes();
}

/// Runs it in another namespace.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    let entered = || {
        // SAFETY: setns takes two integers; it changes the namespace of this thread alone.
        let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        checked(result).expect("root may enter it");
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join().expect("it does not fail"))
}

/// No process is in the namespace any more, but somebody has it open, as container runtimes do.
fn a_descriptor_keeps_the_leftovers() {
    let mut victim = Victim::start();
    victim.does("own-network");
    let service = victim.listen("4");
    let namespace = File::open(format!("/proc/{}/ns/net", victim.pid())).expect("the victim lives");
    let _peer = inside(&namespace, || {
        short_fin_timeout();
        Peer::connect(service)
    });
    victim.does("accept 1");
    let mut tracer = Tracer::attach(victim.pid(), &["--wait"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    inside(&namespace, || {
        report.shows(&[
            "1 LISTEN closed listener now",
            "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        ]);
    });
    kept(report.in_state("ESTABLISHED")[0], &tracer.record("freed"));
    tracer.finishes();
    let left = inside(&namespace, || judge::count(service.port(), "FIN_WAIT2"));
    assert_eq!(left, 0);
}
