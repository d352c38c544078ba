//! Recordings: a replay prints what the trace printed.
//!
//! The deaths are one of each kind, on ports that are always the same. `cargo xtask recordings` runs this on each kernel of
//! the matrix and keeps the recording.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::peer::Peer;
use sockleak_tests::programs;
use sockleak_tests::recordings::{Form, RECORDED, SHOW, first_difference};
use sockleak_tests::rights::{self, NOBODY};
use sockleak_tests::sandbox::short_fin_timeout;
use sockleak_tests::tracer::{Tracer, finish};
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(&[], named![a_replay_prints_what_the_trace_printed])
}

const SERVER: u16 = 8080;
const PARENT: u16 = 8081;
const PREFORK: u16 = 8082;
const MPTCP: u16 = 8083;
const SHARED: u16 = 8084;
/// Where the client connects to.
const REMOTE: &str = "127.0.0.1:9090";

fn a_replay_prints_what_the_trace_printed() {
    short_fin_timeout();
    let folder = tempfile::tempdir().expect("a folder");
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), everybody).expect("it is ours");
    let mut scene = Scene::set();
    let mut traces = Form::ALL.map(|form| Trace::begin(folder.path(), form, &scene.targets()));
    scene.play(&mut traces);
    for trace in &mut traces {
        trace.end();
    }
    for trace in &traces {
        if let Some(difference) = first_difference(&trace.tracer.stdout(), &trace.replay()) {
            panic!("a replay prints other {:?}\n{difference}", trace.form);
        }
    }
    if env::args().any(|argument| argument == SHOW) {
        let recording = fs::read_to_string(&traces[JSON].recording).expect("it was made");
        for line in recording.lines() {
            println!("{RECORDED}{line}");
        }
    }
}

/// The place in [`Form::ALL`] of the trace whose records are waited for.
const JSON: usize = 1;

/// A trace that is recorded. Its times are told in UTC.
struct Trace {
    form: Form,
    tracer: Tracer,
    recording: PathBuf,
}

impl Trace {
    #[track_caller]
    fn begin(folder: &Path, form: Form, targets: &[&Victim]) -> Self {
        let recording = folder.join(format!("{}.jsonl", form.extension()));
        let pids: Vec<_> = targets.iter().map(|victim| victim.pid().to_string()).collect();
        let mut command = Command::new(programs::sockleak());
        command
            .env("TZ", "UTC")
            .args(["-o", form.name(), "--wait", "--pid", &pids.join(","), "--record"])
            .arg(&recording);
        let mut tracer = Tracer::spawn(&mut command);
        tracer.says_on_stderr("watching");
        Self {
            form,
            tracer,
            recording,
        }
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    fn end(&mut self) {
        self.tracer.signal(libc::SIGINT);
        assert_eq!(self.tracer.status(), 0);
    }

    /// What a replay prints to somebody who may do nothing.
    #[track_caller]
    fn replay(&self) -> String {
        chown(&self.recording, Some(NOBODY), Some(NOBODY)).expect("it is ours");
        let mut command = self.form.replay(programs::sockleak(), &self.recording);
        rights::keep_only(&mut command, &[]);
        let run = finish(&mut command);
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert!(!run.stderr.contains("cut"), "{}", run.stderr);
        run.stdout
    }
}

/// Those who die. The ports are all on loopback.
struct Scene {
    /// Its clients differ.
    server: Victim,
    clients: Vec<Peer>,
    /// Dies before its child.
    parent: Victim,
    child: u32,
    /// Connects to others, and closes something itself.
    client: Victim,
    /// Has children that accept from its listener.
    prefork: Victim,
    mptcp: Option<Victim>,
    /// These two listen at one address.
    shared: [Victim; 2],
    /// The other ends of connections that nothing happens to, and who listens for the client.
    _idle: Vec<Peer>,
    _remote: TcpListener,
}

impl Scene {
    #[track_caller]
    fn set() -> Self {
        let mut idle = Vec::new();
        let mut serving = |name: &str, options: &str, connections| {
            let mut victim = named_victim(name);
            let address = victim.listen(&format!("4 {options}"));
            idle.extend(victim.accept(address, connections));
            victim
        };
        let mut server = serving("server", &format!("port={SERVER}"), 0);
        let clients = server.accept(([127, 0, 0, 1], SERVER).into(), 6);
        let mut parent = serving("parent", &format!("port={PARENT} reuseaddr"), 1);
        let child = parent.forks("fork");
        let mut prefork = serving("prefork", &format!("port={PREFORK} reuseaddr"), 0);
        let shared = [("old", 1), ("new", 0)]
            .map(|(name, connections)| serving(name, &format!("port={SHARED} reuseport"), connections));
        prefork.tell("workers 2 2");
        idle.extend((0..4).map(|_| Peer::connect(([127, 0, 0, 1], PREFORK).into())));
        for _ in 0..2 {
            prefork.child_answers();
        }

        let remote = TcpListener::bind(REMOTE).expect("an address of the sandbox");
        let mut client = named_victim("client");
        client.does(&format!("outgoing 4 {REMOTE}"));
        idle.extend((0..4).map(|_| Peer::from(remote.accept().expect("it has connected").0)));

        let mptcp = Need::Mptcp.unmet().is_none().then(|| {
            let mut victim = named_victim("mptcp");
            let address = victim.listen(&format!("4 mptcp port={MPTCP}"));
            idle.push(Peer::connect_mptcp(address));
            victim.does("accept 1");
            victim
        });
        Self {
            server,
            clients,
            parent,
            child,
            client,
            prefork,
            mptcp,
            shared,
            _idle: idle,
            _remote: remote,
        }
    }

    fn targets(&self) -> Vec<&Victim> {
        let one = [&self.server, &self.parent, &self.client, &self.prefork];
        one.into_iter().chain(&self.mptcp).chain(&self.shared).collect()
    }

    /// One dies after the other, each when the one before is reported. The last one lives.
    #[track_caller]
    fn play(&mut self, traces: &mut [Trace; 2]) {
        self.crash_the_server(traces);
        let tracer = &mut traces[JSON].tracer;
        self.orphan_the_child(tracer);
        self.end_the_client(tracer);

        self.prefork.group_killed();
        let reports = tracer.reports(3);
        let connections = reports
            .values()
            .map(|report| report.in_state("ESTABLISHED").len());
        let mut connections: Vec<_> = connections.collect();
        connections.sort_unstable();
        assert_eq!(connections, [0, 2, 2], "of the parent and its two workers");
        if let Some(mptcp) = &mut self.mptcp {
            mptcp.killed_by(libc::SIGKILL);
            tracer.report().reads(&[
                "1 LISTEN closed listener now",
                "1 ESTABLISHED fin_wait2 closed_by_kernel mptcp_timeout",
            ]);
        }
        self.shared[0].dies("exit 3");
        tracer.report().reads(&[
            "1 LISTEN closed listener now",
            "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        ]);
        // The countdown has something to say, too.
        while tracer.record("freed")["free_rule"] != "fin_timeout" {}
    }

    /// Of its clients two close when it does, two do nothing, one is cut off, and one has sent what it does not read.
    #[track_caller]
    fn crash_the_server(&mut self, traces: &mut [Trace; 2]) {
        self.clients[4].cut_off();
        self.clients[5].send(b"twelve bytes");
        let closing: Vec<_> = self.clients.drain(..2).map(Peer::closes_when_closed).collect();
        // The report does not wait for a peer that is late on a busy machine.
        for trace in &*traces {
            trace.tracer.stops();
        }
        self.server.dies("segv");
        for peer in closing {
            peer.join().expect("it has closed");
        }
        wait_until("TIME_WAIT", || judge::count(SERVER, "TIME_WAIT") == 2);
        for trace in &*traces {
            trace.tracer.signal(libc::SIGCONT);
        }
        traces[JSON].tracer.report().reads(&[
            "1 LISTEN closed listener now",
            "2 ESTABLISHED time_wait closed_by_kernel timewait_timer",
            "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
            "1 ESTABLISHED fin_wait1 peer_unreachable retransmits",
            "1 ESTABLISHED reset unread_data now",
        ]);
    }

    #[track_caller]
    fn orphan_the_child(&mut self, tracer: &mut Tracer) {
        self.parent.killed_by(libc::SIGTERM);
        tracer.report().reads(&[
            "1 LISTEN held inherited holder",
            "1 ESTABLISHED held inherited holder",
        ]);
        self.parent.kill_child(self.child);
        tracer.report().reads(&[
            "1 LISTEN closed listener now",
            "1 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
        ]);
    }

    #[track_caller]
    fn end_the_client(&mut self, tracer: &mut Tracer) {
        self.client.does("close 2");
        self.client.dies("exit 1");
        let report = tracer.report();
        report.reads(&["2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout"]);
        assert_eq!(report.left_while_alive(), ["2 fin_wait2 to 9090"], "{report}");
    }
}

#[track_caller]
fn named_victim(name: &str) -> Victim {
    let mut victim = Victim::start();
    victim.does(&format!("comm {name}"));
    // The signals of the test end it.
    victim.does("default-signals");
    victim
}
