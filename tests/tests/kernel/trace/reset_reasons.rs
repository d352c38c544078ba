//! Every RST that a death caused has the kernel's own reason, where the kernel gives one.

use std::fs;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::peer::Peer;
use sockleak_tests::report::Report;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            unread_data_is_tcp_abort_on_close,
            linger_zero_is_tcp_state,
            a_negative_linger2_is_tcp_abort_on_data,
            without_a_reset_there_is_no_reason,
        ],
    )
}

/// Whether the kernel has `enum sk_rst_reason`, which `tcp_send_reset` has given since it exists.
fn kernel_gives_reasons() -> bool {
    let name = b"sk_rst_reason\0";
    let btf = fs::read("/sys/kernel/btf/vmlinux").expect("the kernel has BTF");
    btf.windows(name.len()).any(|window| window == name)
}

/// Kills a server with one connection that was `prepared`, whose end the kernel counts in `counter`.
#[track_caller]
fn reset_after(counter: &str, prepared: impl FnOnce(&mut Victim, &mut Peer)) -> Report {
    let (mut victim, mut peers) = Victim::serving("4", 1);
    prepared(&mut victim, &mut peers[0]);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    let before = judge::netstat(counter);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(judge::netstat(counter), before + 1, "{counter}: {report}");
    report
}

#[track_caller]
fn has_reason(report: &Report, reason: &str) {
    let expected = kernel_gives_reasons().then_some(reason);
    let sockets = report.in_state("ESTABLISHED");
    assert_eq!(sockets.len(), 1, "{report}");
    assert_eq!(sockets[0]["reset_reason"], Value::from(expected), "{report}");
    assert_eq!(report.listener()["reset_reason"], Value::Null, "{report}");
}

fn unread_data_is_tcp_abort_on_close() {
    let report = reset_after("TCPAbortOnClose", |_, peer| {
        peer.send(b"unread");
    });
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED reset unread_data now",
    ]);
    has_reason(&report, "tcp_abort_on_close");
}

fn linger_zero_is_tcp_state() {
    let report = reset_after("TCPAbortOnData", |victim, _| {
        victim.does("linger 0 0");
    });
    report.shows(&[
        "1 LISTEN closed listener now",
        "1 ESTABLISHED reset linger_zero now",
    ]);
    has_reason(&report, "tcp_state");
}

fn a_negative_linger2_is_tcp_abort_on_data() {
    let report = reset_after("TCPAbortOnData", |victim, _| {
        victim.does("linger2 -1 0");
    });
    report.shows(&["1 LISTEN closed listener now", "1 ESTABLISHED reset linger2 now"]);
    has_reason(&report, "tcp_abort_on_data");
}

fn without_a_reset_there_is_no_reason() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    for socket in report.sockets() {
        assert!(
            socket
                .as_object()
                .expect("an object")
                .contains_key("reset_reason"),
            "{socket}"
        );
        assert_eq!(socket["reset_reason"], Value::Null, "{socket}");
    }
}
