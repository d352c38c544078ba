//! The dying process, as a test commands it.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use crate::limit::wait_until;
use crate::lines::Lines;
use crate::peer::Peer;
use crate::pidfd::{self, Pidfd};
use crate::{descriptors, programs, sandbox};

/// A process of which the test is the parent. It and its children end with this value.
pub struct Victim {
    child: Child,
    input: ChildStdin,
    lines: Lines,
    errors: Lines,
    relatives: Vec<(u32, Pidfd)>,
}

impl Victim {
    /// The victim program, waiting for commands.
    #[must_use]
    pub fn start() -> Self {
        Self::spawn(&mut Command::new(programs::victim()))
    }

    /// A victim that listens and has accepted that many connections, and their other ends.
    #[must_use]
    pub fn serving(family: &str, connections: usize) -> (Self, Vec<Peer>) {
        let mut victim = Self::start();
        let address = victim.listen(family);
        let peers = victim.accept(address, connections);
        (victim, peers)
    }

    /// A Python program, as the argument of `python3 -c`.
    #[must_use]
    pub fn python(program: &str) -> Self {
        Self::spawn(Command::new(programs::python().expect("a needed program")).args(["-u", "-c", program]))
    }

    /// Any program. It leads a process group of its own, so that the group can be signalled.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let command = command.process_group(0).stdin(Stdio::piped());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = descriptors::as_before(command)
            .spawn()
            .expect("the victim starts");
        Self {
            input: child.stdin.take().expect("a pipe"),
            lines: Lines::of(child.stdout.take().expect("a pipe")),
            errors: Lines::of(child.stderr.take().expect("a pipe")),
            child,
            relatives: Vec::new(),
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command without waiting for the answer.
    #[track_caller]
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the victim lives");
    }

    /// The next answer of the victim program.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        let line = self.line();
        let answer = line
            .strip_prefix("ok")
            .unwrap_or_else(|| panic!("the victim says {line}"));
        answer.trim().to_owned()
    }

    /// The next line of any program.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.lines.next();
        line.unwrap_or_else(|| panic!("no line of the victim after {:?}", self.lines.so_far()))
    }

    /// Gives a command and waits for its answer.
    #[track_caller]
    pub fn does(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Lets it listen; the address is where peers connect.
    #[track_caller]
    pub fn listen(&mut self, how: &str) -> SocketAddr {
        let address = self.does(&format!("listen {how}"));
        address.parse().expect("an address")
    }

    /// Connects peers, which it accepts in that order.
    #[track_caller]
    pub fn accept(&mut self, address: SocketAddr, connections: usize) -> Vec<Peer> {
        let peers = (0..connections).map(|_| Peer::connect(address)).collect();
        self.does(&format!("accept {connections}"));
        peers
    }

    /// Gives a command that makes a child, and takes care of its end.
    #[track_caller]
    pub fn forks(&mut self, command: &str) -> u32 {
        self.tell(command);
        self.child_answers()
    }

    /// Takes care of the end of the child whose number is the next answer.
    #[track_caller]
    pub fn child_answers(&mut self) -> u32 {
        let pid = self.answer().parse().expect("a process id");
        self.adopt(pid);
        pid
    }

    /// Takes care of the end of that child.
    #[track_caller]
    pub fn adopt(&mut self, pid: u32) {
        self.relatives
            .push((pid, Pidfd::open(pid).expect("a living child")));
    }

    /// Ends one of its children and waits for that.
    #[track_caller]
    pub fn kill_child(&self, pid: u32) {
        let child = self.relatives.iter().find(|(known, _)| *known == pid);
        child.expect("a child of the victim").1.kill();
    }

    /// Lets it die as the victim program's `die` says, and waits for that.
    #[track_caller]
    pub fn dies(&mut self, way: &str) -> ExitStatus {
        self.tell(&format!("die {way}"));
        self.end()
    }

    /// Sends it a signal that ends it, and waits for that.
    #[track_caller]
    pub fn killed_by(&mut self, signal: i32) -> ExitStatus {
        self.signal(signal);
        let status = self.end();
        assert_eq!(status.signal(), Some(signal), "the signal ended the victim");
        status
    }

    #[track_caller]
    pub fn signal(&self, signal: i32) {
        pidfd::signal(self.number(), signal).expect("the victim was not waited for");
    }

    /// Ends it and all of its children at the same time.
    #[track_caller]
    pub fn group_killed(&mut self) {
        pidfd::signal(-self.number(), libc::SIGKILL).expect("the group exists");
        self.end();
    }

    /// Waits for its end, after which the kernel has closed its sockets.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the victim", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it was waited for")
    }

    fn number(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are positive")
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let (said, errors) = (self.lines.so_far(), self.errors.so_far());
        sandbox::tell(&format!("--- victim {} said\n{said}{errors}", self.pid()));
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
