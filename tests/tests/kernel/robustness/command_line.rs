//! Options, signals and exit statuses.

use std::io;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::peer::Peer;
use sockleak_tests::programs;
use sockleak_tests::tracer::{self, Tracer};
use sockleak_tests::victim::Victim;

use crate::{named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(
        &[],
        named![
            a_command_gives_its_exit_status,
            a_command_that_cannot_be_run_gives_126_or_127,
            a_command_is_traced,
            a_command_keeps_limits_and_signal_mask,
            an_interrupt_is_passed_on_to_the_command,
            an_interrupt_prints_what_is_known,
            exit_code_says_whether_something_is_left,
            failed_leaves_out_successes,
            summary_leaves_out_the_sockets,
            a_closed_pipe_is_a_success,
        ],
    )
}

fn a_command_gives_its_exit_status() {
    for (command, status) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -SEGV $$", 139),
        ("kill -TERM $$", 143),
    ] {
        let run = tracer::run(["-o", "json", "--", "sh", "-c", command]);
        assert_eq!(run.status, status, "{command}: {}", run.stderr);
    }
}

fn a_command_that_cannot_be_run_gives_126_or_127() {
    for (command, status) in [("no-such-program", 127), ("/proc/version", 126)] {
        let run = tracer::run(["--", command]);
        assert_eq!(run.status, status, "{command}: {}", run.stderr);
        assert!(run.stderr.contains(command), "{}", run.stderr);
    }
}

fn a_command_is_traced() {
    let victim = programs::victim();
    let commands = ["listen 4", "accept 2", "die segv"];
    let mut tracer = Tracer::start(
        ["--", victim.to_str().expect("UTF-8")]
            .into_iter()
            .chain(commands),
    );
    let address = tracer.line_of_command();
    let address = address.trim_start_matches("ok ").parse().expect("an address");
    let _peers: Vec<_> = (0..2).map(|_| Peer::connect(address)).collect();
    let report = tracer.report();
    report.shows(&[
        "1 LISTEN closed listener now",
        "2 ESTABLISHED fin_wait2 closed_by_kernel fin_timeout",
    ]);
    assert_eq!(report["death"]["signal_name"], "SEGV");
    assert_eq!(tracer.status(), 139);
}

fn a_command_keeps_limits_and_signal_mask() {
    let show = [
        "sh",
        "-c",
        "ulimit -a; grep -E '^(Sig|Shd|Cap|Uid|Gid)' /proc/self/status",
    ];
    let plain = tracer::finish(Command::new(show[0]).args(&show[1..])).stdout;
    let traced = tracer::run(["-o", "json", "--"].iter().chain(&show)).stdout;
    let traced: Vec<_> = traced.lines().filter(|line| !line.starts_with('{')).collect();
    // The queue of signals counts those of the whole user and so differs from moment to moment.
    let lines = plain.lines().filter(|line| !line.starts_with("SigQ"));
    assert_eq!(
        traced
            .into_iter()
            .filter(|line| !line.starts_with("SigQ"))
            .collect::<Vec<_>>(),
        lines.collect::<Vec<_>>()
    );
}

fn an_interrupt_is_passed_on_to_the_command() {
    let mut tracer = Tracer::start(["--", "sh", "-c", "echo $$; exec sleep 1000"]);
    let pid: u32 = tracer.line_of_command().parse().expect("a process id");
    tracer.signal(libc::SIGINT);
    let report = tracer.report();
    assert_eq!(report["process"]["pid"], pid);
    assert_eq!(report["death"]["signal_name"], "INT");
    assert_eq!(tracer.status(), 130);
}

fn an_interrupt_prints_what_is_known() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let _peers = victim.accept(address, 2);
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.does("close");
    // The peers may take a moment to acknowledge the FINs.
    wait_until("FIN_WAIT2", || judge::count(address.port(), "FIN_WAIT2") == 2);
    tracer.signal(libc::SIGINT);
    let report = tracer.report();
    assert_eq!(report["death"], Value::Null);
    assert_eq!(report["process"]["pid"], victim.pid());
    assert_eq!(
        report.left_while_alive(),
        [format!("2 fin_wait2 from {}", address.port())]
    );
    tracer.finishes();
    assert_eq!(victim.does("hello"), "", "the victim lives");
}

fn exit_code_says_whether_something_is_left() {
    for (connections, status) in [(1, 1), (0, 0)] {
        let (mut victim, _peers) = Victim::serving("4", connections);
        let mut tracer = Tracer::attach(victim.pid(), &["--exit-code"]);
        victim.killed_by(libc::SIGKILL);
        assert_eq!(tracer.status(), status, "{connections} connections");
    }
}

fn failed_leaves_out_successes() {
    for (way, reports) in [("exit 0", 0), ("exit 1", 1), ("raise 9", 1)] {
        let (mut victim, _peers) = Victim::serving("4", 1);
        let mut tracer = Tracer::attach(victim.pid(), &["--failed"]);
        victim.dies(way);
        assert_eq!(tracer.status(), 0);
        let lines = tracer.stdout();
        assert_eq!(lines.matches(r#""type":"report""#).count(), reports, "{way}");
    }
}

fn summary_leaves_out_the_sockets() {
    let (mut victim, _peers) = Victim::serving("4", 3);
    let mut tracer = Tracer::attach(victim.pid(), &["--summary"]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    assert_eq!(report.sockets().len(), 0, "{report}");
    assert_eq!(report["summary"]["fin_wait2"], 3);
    assert_eq!(report["summary"]["closed"], 1);
    assert_eq!(report["death"]["signal"], json!(9));
}

fn a_closed_pipe_is_a_success() {
    for output in ["json", "text"] {
        let (mut victim, _peers) = Victim::serving("4", 3);
        let pid = victim.pid().to_string();
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(programs::sockleak());
        let mut tracer = Tracer::spawn_into(command.args(["-o", output, "--pid", &pid]), writer.into());
        tracer.says_on_stderr(&pid);
        // With JSON the first record fails before the process dies.
        victim.killed_by(libc::SIGKILL);
        assert_eq!(tracer.status(), 0, "{output}");
    }
}
