//! sockleak as a test runs it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::limit::{limit, wait_for};
use crate::lines::Lines;
use crate::net::checked;
use crate::report::Report;
use crate::seccomp::{self, Refused};
use crate::{descriptors, pidfd, programs, record, sandbox};

/// A running sockleak, ended with this value.
pub struct Tracer {
    child: Child,
    lines: Lines,
    errors: Lines,
    /// Records that were read while another one was waited for.
    passed: Vec<Value>,
}

impl Tracer {
    /// Starts sockleak with JSON output.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::spawn(
            Command::new(programs::sockleak())
                .args(["-o", "json"])
                .args(arguments),
        )
    }

    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let mut tracer = Self::spawn_into(command, Stdio::piped());
        tracer.lines = Lines::of(tracer.child.stdout.take().expect("a pipe"));
        tracer
    }

    /// Starts it with another stdout, of which the test sees nothing.
    #[must_use]
    pub fn spawn_into(command: &mut Command, stdout: Stdio) -> Self {
        let command = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = descriptors::as_before(command).spawn().expect("sockleak starts");
        Self {
            lines: Lines::of(io::empty()),
            errors: Lines::of(child.stderr.take().expect("a pipe")),
            child,
            passed: Vec::new(),
        }
    }

    /// Attaches to a process, with further options, and waits until every hook is in place.
    #[track_caller]
    #[must_use]
    pub fn attach(pid: u32, options: &[&str]) -> Self {
        let mut tracer = Self::start(["--pid", &pid.to_string()].iter().chain(options));
        tracer.watches();
        tracer
    }

    /// Attaches to several processes at once.
    #[track_caller]
    #[must_use]
    pub fn attach_all(pids: impl IntoIterator<Item = u32>, options: &[&str]) -> Self {
        let pids: Vec<_> = pids.into_iter().map(|pid| pid.to_string()).collect();
        let mut tracer = Self::start(["--pid", &pids.join(",")].iter().chain(options));
        tracer.watches();
        tracer
    }

    /// Attaches from another network namespace.
    #[track_caller]
    #[must_use]
    pub fn attach_from(namespace: OwnedFd, pid: u32) -> Self {
        let mut command = Command::new(programs::sockleak());
        command.args(["-o", "json", "--pid", &pid.to_string()]);
        // SAFETY: setns is a system call that needs no lock and no memory.
        unsafe {
            command
                .pre_exec(move || checked(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET)).map(drop));
        }
        let mut tracer = Self::spawn(&mut command);
        tracer.watches();
        tracer
    }

    /// Attaches with system calls that are refused to sockleak.
    #[track_caller]
    #[must_use]
    pub fn attach_without(refused: &[Refused], pid: u32, options: &[&str]) -> Self {
        let mut command = Command::new(programs::sockleak());
        command
            .args(["-o", "json", "--pid", &pid.to_string()])
            .args(options);
        seccomp::refuse(&mut command, refused);
        let mut tracer = Self::spawn(&mut command);
        tracer.watches();
        tracer
    }

    /// Attaches for the text report and waits until every hook is in place.
    #[track_caller]
    #[must_use]
    pub fn attach_for_text(pid: u32, options: &[&str]) -> Self {
        let pid = pid.to_string();
        let mut command = Command::new(programs::sockleak());
        let mut tracer = Self::spawn(command.args(["--pid", &pid]).args(options));
        tracer.says_on_stderr(&pid);
        tracer
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the record that tells scripts when to begin. It is the first one.
    #[track_caller]
    pub fn watches(&mut self) -> Value {
        let watch = self.record("watch");
        assert!(self.passed.is_empty(), "before `watch`: {:?}", self.passed);
        watch
    }

    /// Waits for a line on stderr with that word: the one that says what is watched names the process.
    #[track_caller]
    pub fn says_on_stderr(&mut self, word: &str) {
        while let Some(line) = self.errors.next() {
            if line.contains(word) {
                return;
            }
        }
        panic!("sockleak says no `{word}`");
    }

    /// The next record of that type. Others are kept.
    #[track_caller]
    pub fn record(&mut self, kind: &str) -> Value {
        loop {
            let record = self.next(kind);
            if record["type"] == kind {
                return record;
            }
            self.passed.push(record);
        }
    }

    /// Keeps the next record, whatever it is.
    #[track_caller]
    pub fn passes(&mut self) {
        let record = self.next("record");
        self.passed.push(record);
    }

    #[track_caller]
    fn next(&self, wanted: &str) -> Value {
        loop {
            let line = self.line(wanted);
            // With a COMMAND stdout is the command's, too.
            if let Some(record) = record::in_line(&line) {
                return record;
            }
        }
    }

    /// The next line that the traced COMMAND writes, between the records.
    #[track_caller]
    pub fn line_of_command(&mut self) -> String {
        loop {
            let line = self.line("line of the command");
            match record::in_line(&line) {
                Some(record) => self.passed.push(record),
                None => return line,
            }
        }
    }

    #[track_caller]
    fn line(&self, wanted: &str) -> String {
        let line = self.lines.next();
        line.unwrap_or_else(|| panic!("sockleak gives no `{wanted}`"))
    }

    #[track_caller]
    pub fn report(&mut self) -> Report {
        Report::new(self.record("report"))
    }

    /// The next report of a crash of so many sockets that events may be lost.
    #[track_caller]
    pub fn report_with_losses(&mut self) -> Report {
        Report::with_losses(self.record("report"))
    }

    /// As many reports, by the process that they are about, which must be a different one each.
    #[track_caller]
    pub fn reports(&mut self, count: usize) -> HashMap<u32, Report> {
        self.by_process(count, Self::report)
    }

    /// The same for a crash that may lose events.
    #[track_caller]
    pub fn reports_with_losses(&mut self, count: usize) -> HashMap<u32, Report> {
        self.by_process(count, Self::report_with_losses)
    }

    #[track_caller]
    fn by_process(&mut self, count: usize, next: fn(&mut Self) -> Report) -> HashMap<u32, Report> {
        let mut reports = HashMap::new();
        for _ in 0..count {
            let report = next(self);
            let pid = report["process"]["pid"].as_u64().expect("a process id");
            let pid = u32::try_from(pid).expect("process ids are small");
            let text = report.to_string();
            assert!(reports.insert(pid, report).is_none(), "another report of {text}");
        }
        reports
    }

    /// The records of that type that came before the last one that was waited for.
    pub fn passed<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.passed.iter().filter(move |record| record["type"] == kind)
    }

    /// Waits for the end and gives the exit status, 128 and more for a signal as a shell does.
    #[track_caller]
    pub fn status(&mut self) -> i32 {
        self.status_within(limit())
    }

    /// The same for one that runs longer on purpose.
    #[track_caller]
    pub fn status_within(&mut self, longest: Duration) -> i32 {
        let mut status = None;
        wait_for(longest, "the end of sockleak", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        let status = status.expect("it was waited for");
        status.code().unwrap_or_else(|| panic!("sockleak died: {status}"))
    }

    /// Waits for the end and checks that it was a success without any further report.
    #[track_caller]
    pub fn finishes(&mut self) {
        assert_eq!(self.status(), 0, "exit status");
        while let Some(line) = self.lines.next() {
            assert!(!line.contains(r#""type":"report""#), "one more report: {line}");
        }
    }

    /// Everything on stdout, up to its end.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.lines.all()
    }

    /// Everything on stderr, up to its end.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.errors.all()
    }

    /// Stops it, so that it sees nothing until it is sent SIGCONT.
    #[track_caller]
    pub fn stops(&self) {
        self.signal(libc::SIGSTOP);
        let path = format!("/proc/{}/stat", self.pid());
        wait_for(limit(), "the stop of sockleak", || {
            fs::read_to_string(&path).is_ok_and(|stat| stat.contains(") T "))
        });
    }

    #[track_caller]
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("process ids are positive");
        pidfd::signal(pid, signal).expect("sockleak was not waited for");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        sandbox::tell(&format!("--- stderr of sockleak\n{}", self.errors.so_far()));
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sockleak that ran to its end.
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs sockleak to its end, for what needs no process to watch.
#[track_caller]
#[must_use]
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    finish(Command::new(programs::sockleak()).args(arguments))
}

/// Runs a prepared command to its end.
#[track_caller]
#[must_use]
pub fn finish(command: &mut Command) -> Run {
    let mut tracer = Tracer::spawn(command);
    Run {
        status: tracer.status(),
        stdout: tracer.stdout(),
        stderr: tracer.stderr(),
    }
}
