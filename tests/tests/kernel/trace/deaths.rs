//! How processes die, and what then is in their table of descriptors.

use std::process;

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::judge;
use sockleak_tests::peer::Peer;
use sockleak_tests::report::Report;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            sigkill_by_another_process,
            sigsegv_by_the_kernel,
            abort_by_itself,
            exit_without_clean_up,
            exit_with_a_code,
            an_unwinding_panic_has_closed_its_sockets,
            a_worker_thread_that_crashes,
            a_leader_that_ended_before_the_attach,
            a_leader_that_ends_before_the_others,
            many_threads,
            exec_closes_what_is_marked,
            exec_keeps_the_rest,
        ],
    );
    tests.extend(sandboxed(
        &[Need::Python],
        named![
            an_uncaught_exception_has_closed_its_sockets,
            sys_exit_has_closed_its_sockets
        ],
    ));
    tests
}

const IDLE: [&str; 2] = [
    "1 LISTEN closed listener now",
    "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
];

/// A server with two idle connections, watched and then told the commands, of which the last one kills it.
#[track_caller]
fn death_of_a_server(commands: &[&str]) -> (Report, u32) {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let (last, before) = commands.split_last().expect("a command that kills");
    for command in before {
        victim.does(command);
    }
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.tell(last);
    victim.end();
    let report = tracer.report();
    tracer.finishes();
    report.shows(&IDLE);
    assert_eq!(report["process"]["pid"], victim.pid());
    assert_eq!(report["process"]["comm"], "victim");
    (report, victim.pid())
}

#[track_caller]
fn assert_signal(report: &Report, signal: i32, name: &str) {
    let death = &report["death"];
    assert_eq!(death["cause"], "signal", "{death}");
    assert_eq!(
        (&death["signal"], &death["signal_name"]),
        (&signal.into(), &name.into()),
        "{death}"
    );
    assert_eq!(
        (&death["exit_code"], &death["oom"]),
        (&Value::Null, &false.into()),
        "{death}"
    );
}

#[track_caller]
fn assert_exit(report: &Report, code: i32) {
    let death = &report["death"];
    assert_eq!(
        (&death["cause"], &death["exit_code"]),
        (&"exit".into(), &code.into()),
        "{death}"
    );
    assert_eq!(
        (&death["signal"], &death["sent_by"]),
        (&Value::Null, &Value::Null),
        "{death}"
    );
}

fn sigkill_by_another_process() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&IDLE);
    assert_signal(&report, libc::SIGKILL, "KILL");
    assert_eq!(report["death"]["sent_by"]["pid"], process::id());
}

fn sigsegv_by_the_kernel() {
    let (report, _) = death_of_a_server(&["die segv"]);
    assert_signal(&report, libc::SIGSEGV, "SEGV");
    assert!(report["death"]["sent_by"].is_null());
}

fn abort_by_itself() {
    let (report, pid) = death_of_a_server(&["die abort"]);
    assert_signal(&report, libc::SIGABRT, "ABRT");
    assert_eq!(report["death"]["sent_by"]["pid"], pid);
}

fn exit_without_clean_up() {
    assert_exit(&death_of_a_server(&["die _exit 3"]).0, 3);
}

fn exit_with_a_code() {
    assert_exit(&death_of_a_server(&["die exit 0"]).0, 0);
    assert_exit(&death_of_a_server(&["die exit 255"]).0, 255);
}

fn a_worker_thread_that_crashes() {
    let (report, _) = death_of_a_server(&["threads 3", "die-in-thread segv"]);
    assert_signal(&report, libc::SIGSEGV, "SEGV");
}

/// Nothing can be read in /proc of such a process, but in the folders of its other threads.
fn a_leader_that_ended_before_the_attach() {
    let (report, _) = death_of_a_server(&["leader-exit", "die _exit 3"]);
    assert_exit(&report, 3);
}

fn a_leader_that_ends_before_the_others() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("leader-exit");
    victim.dies("raise 15");
    let report = tracer.report();
    report.shows(&IDLE);
    assert_signal(&report, libc::SIGTERM, "TERM");
    tracer.finishes();
}

fn many_threads() {
    let (report, _) = death_of_a_server(&["threads 100", "die raise 15"]);
    assert_signal(&report, libc::SIGTERM, "TERM");
}

fn exec_closes_what_is_marked() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peers = victim.accept(address, 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("exec");
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    report.shows(&[]);
    assert_eq!(report["process"]["comm"], "exe", "the name after the exec");
    assert_eq!(
        report.left_while_alive(),
        [format!("2 fin_wait2 from {}", address.port())]
    );
}

fn exec_keeps_the_rest() {
    let (mut victim, _peers) = Victim::serving("4", 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("keep-on-exec");
    victim.does("exec");
    victim.killed_by(libc::SIGKILL);
    tracer.report().shows(&IDLE);
}

/// The process closes its sockets itself on its way out, so none is in the table, but the leftovers are there.
#[track_caller]
fn assert_closed_on_the_way_out(tracer: &mut Tracer, port: u16, code: i32) {
    let report = tracer.report();
    report.shows(&[]);
    assert_exit(&report, code);
    assert_eq!(report.left_while_alive(), [format!("3 fin_wait2 from {port}")]);
    assert_eq!(judge::count(port, "FIN_WAIT2"), 3);
}

fn an_unwinding_panic_has_closed_its_sockets() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peers = victim.accept(address, 3);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.dies("panic");
    assert_closed_on_the_way_out(&mut tracer, address.port(), 101);
}

/// A Python server that accepts three connections and, told so by a line, ends with that statement.
#[track_caller]
fn python_server_ends(statement: &str, code: i32) {
    let mut victim = Victim::python(&format!(
        "import socket, sys\n\
         listener = socket.create_server(('127.0.0.1', 0))\n\
         print(listener.getsockname()[1])\n\
         connections = [listener.accept()[0] for _ in range(3)]\n\
         print('accepted')\n\
         sys.stdin.readline()\n\
         {statement}\n"
    ));
    let port: u16 = victim.line().parse().expect("a port");
    let _peers: Vec<_> = (0..3)
        .map(|_| Peer::connect(([127, 0, 0, 1], port).into()))
        .collect();
    assert_eq!(victim.line(), "accepted");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.tell("");
    victim.end();
    assert_closed_on_the_way_out(&mut tracer, port, code);
}

fn an_uncaught_exception_has_closed_its_sockets() {
    python_server_ends("raise RuntimeError('nobody catches it')", 1);
}

fn sys_exit_has_closed_its_sockets() {
    python_server_ends("sys.exit(3)", 3);
}
