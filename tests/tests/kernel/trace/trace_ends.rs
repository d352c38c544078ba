//! How a trace ends: whatever ends it, what has died is reported, and a COMMAND's status comes back.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use sockleak_tests::limit::{scaled, wait_until};
use sockleak_tests::net::checked;
use sockleak_tests::peer::Peer;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::victim::Victim;
use sockleak_tests::{pidfd, programs};

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_signal_right_after_nine_deaths_loses_none,
            the_end_of_the_duration_right_after_nine_deaths_loses_none,
            once_reports_all_that_died_together,
            a_signal_ends_the_countdown_before_it_begins,
            a_hangup_ends_a_trace_unless_it_is_ignored,
            a_second_signal_ends_a_trace_that_nobody_reads,
            a_second_signal_leaves_a_command_with_a_word,
            a_command_that_has_ended_gives_its_status_though_nobody_reads,
            a_command_outlives_the_reader_of_stdout,
            a_command_outlives_the_duration,
            a_daemon_outlives_a_command_that_nobody_reads,
            a_signal_after_the_command_has_ended_ends_the_trace,
            who_is_still_followed_is_said,
        ],
    )
}

const WORKERS: usize = 8;

/// A victim with workers, all of which have its listener.
struct Family {
    victim: Victim,
    workers: Vec<i32>,
}

impl Family {
    fn start() -> Self {
        let mut victim = Victim::start();
        victim.listen("4");
        let workers = Self::fork(&mut victim, WORKERS, 0);
        Self { victim, workers }
    }

    fn fork(victim: &mut Victim, count: usize, connections: usize) -> Vec<i32> {
        victim.tell(&format!("workers {count} {connections}"));
        let pid = |_| victim.answer().parse().expect("a process id");
        (0..count).map(pid).collect()
    }

    /// Kills all of them while sockleak is stopped: it sees every death at once.
    #[track_caller]
    fn die_unseen(&mut self, tracer: &Tracer) {
        tracer.stops();
        self.victim.group_killed();
        let is_dead = |pid: &i32| matches!(state(*pid), None | Some('Z' | 'X'));
        wait_until("the deaths of the workers", || self.workers.iter().all(is_dead));
    }
}

/// Every one of them has a report with a death, and there is nothing else.
#[track_caller]
fn all_are_reported(tracer: &mut Tracer) {
    let reports = tracer.reports(1 + WORKERS);
    assert!(reports.values().all(|report| report["death"]["signal"] == 9));
    tracer.finishes();
}

fn a_signal_right_after_nine_deaths_loses_none() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut family = Family::start();
        let mut tracer = Tracer::attach(family.victim.pid(), &[]);
        family.die_unseen(&tracer);
        tracer.signal(signal);
        tracer.signal(libc::SIGCONT);
        all_are_reported(&mut tracer);
    }
}

fn the_end_of_the_duration_right_after_nine_deaths_loses_none() {
    let duration = scaled(Duration::from_secs(2));
    let mut family = Family::start();
    let address = family.victim.listen("4");
    let _peers = family.victim.accept(address, 1);
    let options = ["-d", &format!("{}ms", duration.as_millis())];
    let mut tracer = Tracer::attach(family.victim.pid(), &options);
    family.victim.does("close");
    // The time runs from now on at the latest.
    tracer.record("transition");
    let started = Instant::now();
    family.die_unseen(&tracer);
    wait_until("the end of the duration", || started.elapsed() > duration);
    tracer.signal(libc::SIGCONT);
    all_are_reported(&mut tracer);
}

/// A victim whose worker has a connection to that peer.
fn with_one_connected_worker() -> (Family, Peer) {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    victim.tell("workers 1 1");
    let peer = Peer::connect(address);
    let workers = vec![victim.answer().parse().expect("a process id")];
    (Family { victim, workers }, peer)
}

/// The peer of a worker does not answer, and its report waits for that longer than the one that ends the trace.
fn once_reports_all_that_died_together() {
    let (mut family, peer) = with_one_connected_worker();
    let mut tracer = Tracer::attach(family.victim.pid(), &["--once"]);
    peer.cut_off();
    family.die_unseen(&tracer);
    tracer.signal(libc::SIGCONT);
    let reports = tracer.reports(2);
    assert!(reports.values().all(|report| report["death"]["signal"] == 9));
    tracer.finishes();
}

/// It comes while the last reports are waited for, and what is left then would be waited for much longer.
fn a_signal_ends_the_countdown_before_it_begins() {
    let (mut family, peer) = with_one_connected_worker();
    let mut tracer = Tracer::attach(family.victim.pid(), &["--once", "--wait"]);
    peer.cut_off();
    family.die_unseen(&tracer);
    tracer.signal(libc::SIGCONT);
    // Both are dead, and which of them is known first is not decided.
    let first = tracer.report();
    tracer.signal(libc::SIGINT);
    let second = tracer.report();
    let waiting = [&first, &second].map(|report| report["summary"]["fin_wait1"].as_u64());
    assert!(waiting.contains(&Some(1)), "{first} {second}");
    tracer.finishes();
}

fn a_hangup_ends_a_trace_unless_it_is_ignored() {
    let (victim, _peers) = Victim::serving("4", 1);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    tracer.signal(libc::SIGHUP);
    assert_eq!(tracer.report()["death"], Value::Null);
    tracer.finishes();

    let (mut victim, _peers) = Victim::serving("4", 1);
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP; exec "$0" "$@""#]);
    command.arg(programs::sockleak()).args(["-o", "json", "--pid"]);
    let mut tracer = Tracer::spawn(command.arg(victim.pid().to_string()));
    tracer.watches();
    assert!(catches(tracer.pid(), libc::SIGTERM) && !catches(tracer.pid(), libc::SIGHUP));
    tracer.signal(libc::SIGHUP);
    victim.killed_by(libc::SIGKILL);
    assert_eq!(tracer.report()["death"]["signal"], 9);
    tracer.finishes();
}

/// The state of a process, as /proc/PID/stat has it; `None` without a process.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether the process has a handler for that signal (proc(5)).
fn catches(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("a number");
    mask >> (signal - 1) & 1 != 0
}

/// It waits in a write to a pipe that is full.
fn a_second_signal_ends_a_trace_that_nobody_reads() {
    let (mut victim, _peers) = Victim::serving("4", 40);
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--pid", &victim.pid().to_string()]);
    let (mut tracer, _reader) = stalled(&mut command);
    victim.killed_by(libc::SIGKILL);
    is_stuck(&tracer);
    tracer.signal(libc::SIGINT);
    tracer.signal(libc::SIGTERM);
    let status = tracer.status();
    assert!(
        [128 + libc::SIGINT, 128 + libc::SIGTERM].contains(&status),
        "{status}"
    );
}

fn a_command_that_has_ended_gives_its_status_though_nobody_reads() {
    let folder = tempfile::tempdir().expect("an empty folder");
    let out = folder.path().join("out");
    let script = r#"exec "$0" "listen 4" "accept 40" "die _exit 7" > "$OUT""#;
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--", "sh", "-c", script]);
    command.arg(programs::victim()).env("OUT", &out);
    let (mut tracer, _reader) = stalled(&mut command);
    let address = address_in(&out);
    let _peers: Vec<_> = (0..40).map(|_| Peer::connect(address)).collect();
    is_stuck(&tracer);
    tracer.signal(libc::SIGINT);
    tracer.signal(libc::SIGTERM);
    assert_eq!(tracer.status(), 7);
    assert!(!tracer.stderr().contains("keeps running"), "{}", tracer.stderr());
}

/// Starts it with a small pipe that nobody reads as stdout.
fn stalled(command: &mut Command) -> (Tracer, io::PipeReader) {
    let (reader, writer) = io::pipe().expect("a pipe");
    // SAFETY: The call takes integers, and the descriptor is open.
    checked(unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) }).expect("a small pipe");
    let mut tracer = Tracer::spawn_into(command, writer.into());
    tracer.says_on_stderr("watching");
    (tracer, reader)
}

/// Waits until it waits in a write.
#[track_caller]
fn is_stuck(tracer: &Tracer) {
    let call = format!("/proc/{}/syscall", tracer.pid());
    let write = format!("{} ", libc::SYS_write);
    wait_until("a write that is stuck", || {
        fs::read_to_string(&call).is_ok_and(|call| call.starts_with(&write))
    });
}

/// The address in the first answer of a victim that writes to that file.
#[track_caller]
fn address_in(out: &Path) -> SocketAddr {
    let mut address = None;
    wait_until("the address of the command", || {
        let said = fs::read_to_string(out).unwrap_or_default();
        let first = said
            .split_once('\n')
            .and_then(|(first, _)| first.strip_prefix("ok "));
        address = first.and_then(|address| address.parse().ok());
        address.is_some()
    });
    address.expect("it was waited for")
}

/// A COMMAND that ignores signals, which goes when this value does.
struct Stubborn(i32);

impl Drop for Stubborn {
    fn drop(&mut self) {
        let _ = pidfd::signal(self.0, libc::SIGKILL);
    }
}

fn a_second_signal_leaves_a_command_with_a_word() {
    let script = "trap '' INT TERM; echo $$; while :; do sleep 1; done";
    let mut tracer = Tracer::start(["--", "sh", "-c", script]);
    let pid = tracer.line_of_command().parse().expect("a process id");
    let _stubborn = Stubborn(pid);
    tracer.signal(libc::SIGINT);
    tracer.signal(libc::SIGTERM);
    tracer.says_on_stderr(&format!("sh (pid {pid}) keeps running"));
    let status = tracer.status();
    assert!(
        [128 + libc::SIGINT, 128 + libc::SIGTERM].contains(&status),
        "{status}"
    );
}

fn a_command_outlives_the_reader_of_stdout() {
    let folder = tempfile::tempdir().expect("an empty folder");
    let out = folder.path().join("out");
    let (reader, writer) = io::pipe().expect("a pipe");
    let script = r#"exec "$0" "listen 4" "accept 1" close "die _exit 7" > "$OUT""#;
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--", "sh", "-c", script]);
    command.arg(programs::victim()).env("OUT", &out);
    let mut tracer = Tracer::spawn_into(&mut command, writer.into());
    tracer.says_on_stderr("watching");
    drop(reader);
    let _peer = Peer::connect(address_in(&out));
    assert_eq!(tracer.status(), 7);
    let stderr = tracer.stderr();
    assert_eq!(
        stderr.matches("nothing reads stdout any more").count(),
        1,
        "{stderr}"
    );
}

fn a_command_outlives_the_duration() {
    let mut tracer = Tracer::start(["-d", "100ms", "--", "sh", "-c", "echo $$; kill -STOP $$; exit 7"]);
    let pid = tracer.line_of_command().parse().expect("a process id");
    assert_eq!(tracer.report()["death"], Value::Null);
    tracer.says_on_stderr("time is up");
    wait_until("the stop of the command", || state(pid) == Some('T'));
    pidfd::signal(pid, libc::SIGCONT).expect("the command is stopped");
    assert_eq!(tracer.status(), 7);
}

/// What a COMMAND leaves running, which goes when this value does.
fn daemon(tracer: &mut Tracer) -> Stubborn {
    Stubborn(tracer.line_of_command().parse().expect("a process id"))
}

const DAEMONIZES: &str = "sleep 1000 & echo $!; exit 3";

fn a_daemon_outlives_a_command_that_nobody_reads() {
    let folder = tempfile::tempdir().expect("an empty folder");
    let out = folder.path().join("out");
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--", "sh", "-c"]);
    command
        .arg(format!("exec > \"$OUT\"; {DAEMONIZES}"))
        .env("OUT", &out);
    let mut tracer = Tracer::spawn_into(&mut command, writer.into());
    drop(reader);
    assert_eq!(tracer.status(), 3);
    let pid = fs::read_to_string(&out).expect("it was written");
    let daemon = Stubborn(pid.trim().parse().expect("a process id"));
    assert!(fs::exists(format!("/proc/{}", daemon.0)).expect("/proc is there"));
}

fn a_signal_after_the_command_has_ended_ends_the_trace() {
    let mut tracer = Tracer::start(["--", "sh", "-c", DAEMONIZES]);
    let _daemon = daemon(&mut tracer);
    tracer.says_on_stderr("still following 1 child process");
    tracer.signal(libc::SIGTERM);
    assert_eq!(tracer.status(), 3);
    assert_eq!(tracer.report()["death"]["exit_code"], 3);
}

fn who_is_still_followed_is_said() {
    let (mut victim, _peers) = Victim::serving("4", 1);
    let child = victim.forks("fork");
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    tracer.report();
    tracer.says_on_stderr(&format!("still following 1 child process: victim (pid {child})"));
    victim.kill_child(child);
    tracer.report();
    tracer.finishes();
}
