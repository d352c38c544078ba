//! How another process came by a socket: what can be told of it, and what cannot.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::limit::wait_until;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::trace::holders::holders;
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            a_child_became_another_program,
            a_child_received_the_listener_after_the_attach,
        ],
    );
    tests.extend(sandboxed(
        &[Need::PidfdGetfd],
        named![
            a_stranger_took_the_listener,
            a_holder_whose_first_thread_has_ended,
            a_holder_that_is_a_thread_with_a_table_of_its_own,
        ],
    ));
    tests
}

/// Inherited through fork and exec: the holder has the name of the new program.
fn a_child_became_another_program() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let child = victim.forks("fork-exec");
    let comm = || fs::read_to_string(format!("/proc/{child}/comm")).expect("the child lives");
    wait_until("the exec", || comm().trim() != "victim");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held inherited holder",
        "1 ESTABLISHED held inherited holder",
    ]);
    for socket in report.sockets() {
        assert_eq!(holders(socket), [json!([child, comm().trim(), "inherited"])]);
    }
}

/// Both were there at the attach, and only one of them had the listener.
fn a_child_received_the_listener_after_the_attach() {
    let mut victim = Victim::start();
    let courier = victim.forks("courier receives");
    victim.listen("4");
    let mut tracer = Tracer::attach(victim.pid(), &["--once"]);
    victim.does("pass");
    victim.answer();
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&["1 LISTEN held passed_on holder"]);
    assert_eq!(
        holders(report.listener()),
        [json!([courier, "victim", "received"])]
    );
}

/// A process that is no relative took a copy with pidfd_getfd. It was not seen how.
fn a_stranger_took_the_listener() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut stranger = Victim::start();
    let fd = victim.does("fd listener");
    stranger.does(&format!("take {} {fd}", victim.pid()));
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held unknown holder",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(
        holders(report.listener()),
        [json!([stranger.pid(), "victim", null])]
    );
    tracer.finishes();
}

/// `/proc/PID/fd` is the table of the first thread, and empty once that has ended.
fn a_holder_whose_first_thread_has_ended() {
    a_stranger_holds_the_listener(|holder, victim, fd| {
        holder.does(&format!("take {victim} {fd}"));
        holder.does("leader-exit");
    });
}

/// Its process has no such descriptor in `/proc/PID/fd`.
fn a_holder_that_is_a_thread_with_a_table_of_its_own() {
    a_stranger_holds_the_listener(|holder, victim, fd| {
        holder.does(&format!("thread owns-a-table takes {victim} {fd}"));
    });
}

#[track_caller]
fn a_stranger_holds_the_listener(takes: impl FnOnce(&mut Victim, u32, &str)) {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut holder = Victim::start();
    let fd = victim.does("fd listener");
    takes(&mut holder, victim.pid(), &fd);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN held unknown holder",
        "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(pids_of_holders(report.listener()), [holder.pid()], "{report}");
}

fn pids_of_holders(socket: &Value) -> Vec<&Value> {
    let holders = socket["holders"].as_array();
    holders
        .into_iter()
        .flatten()
        .map(|holder| &holder["pid"])
        .collect()
}
