//! `sockleak port`: who has a port, for someone who comes after the crash.

use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::limit::wait_until;
use sockleak_tests::net::{self, Family};
use sockleak_tests::peer::Peer;
use sockleak_tests::report::moment;
use sockleak_tests::tracer::{Run, finish, run};
use sockleak_tests::victim::Victim;
use sockleak_tests::{binding, judge, programs, record, sandbox};

use crate::robustness::refusals::public_copy;
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            a_port_that_nobody_has,
            a_server_that_lives,
            a_listener_of_a_child,
            a_listener_whose_parent_is_gone,
            leftovers_have_the_options_of_the_dead,
            a_socket_that_is_only_bound,
            the_same_port_in_another_namespace,
            without_root_it_says_what_it_cannot,
            in_a_container_it_names_whom_it_sees,
            as_text,
            what_is_no_port,
        ],
    );
    tests.extend(sandboxed(&[Need::Mptcp], named![an_mptcp_listener]));
    tests
}

/// What it says, and its exit status.
#[track_caller]
fn port(number: u16, options: &[&str]) -> (Value, i32) {
    let number = number.to_string();
    let told = run(["port", &number, "-o", "json"].iter().chain(options));
    (parsed(&told), told.status)
}

#[track_caller]
fn parsed(run: &Run) -> Value {
    assert_ne!(run.stdout, "", "{}", run.stderr);
    let told = record::of(&run.stdout);
    assert_eq!(told["type"], "port");
    told
}

/// The sockets of the own namespace. Tests in others may have the same port at the same time.
#[track_caller]
fn sockets(told: &Value) -> Vec<&Value> {
    all_sockets(told)
        .filter(|socket| socket["netns"] == told["netns"])
        .collect()
}

#[track_caller]
fn all_sockets(told: &Value) -> impl Iterator<Item = &Value> {
    told["sockets"].as_array().expect("a list").iter()
}

/// `STATE holders` of each socket.
#[track_caller]
fn held(told: &Value) -> Vec<(String, Vec<(u32, String)>)> {
    let holder = |holder: &Value| {
        let pid = holder["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        (
            pid.expect("a pid"),
            holder["how"].as_str().unwrap_or("-").to_owned(),
        )
    };
    let mut held: Vec<_> = sockets(told)
        .iter()
        .map(|socket| {
            let holders = socket["holders"].as_array().expect("a list");
            (
                socket["state"].as_str().expect("a state").to_owned(),
                holders.iter().map(holder).collect(),
            )
        })
        .collect();
    held.sort_unstable();
    held
}

/// A port of which a listener was closed just now, so that nothing is left of it.
fn unused_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address of the sandbox");
    listener.local_addr().expect("it is bound").port()
}

fn a_port_that_nobody_has() {
    let (told, status) = port(unused_port(), &[]);
    assert_eq!((sockets(&told).len(), status), (0, 0), "{told:#}");
    assert!(binding::sees_the_own_namespace(&told), "{told:#}");
    assert_eq!(told["netns"], sandbox::inode());
    let own = |restart: &&Value| restart["netns"] == told["netns"];
    for restart in told["restart"].as_array().expect("a list").iter().filter(own) {
        for verdict in restart["verdicts"].as_array().expect("a list") {
            assert_eq!(
                (&verdict["bind"], &verdict["free_at"]),
                (&json!("ok"), &Value::Null)
            );
        }
    }
}

fn a_server_that_lives() {
    let (victim, peers) = Victim::serving("4 reuseaddr", 1);
    let address = peers[0].remote();
    for options in [
        &[][..],
        &["--reuseaddr"],
        &["--reuseport"],
        &["--reuseaddr", "--reuseport"],
    ] {
        let (told, status) = port(address.port(), options);
        assert_eq!(status, 1, "{told:#}");
        let own = vec![(victim.pid(), "-".to_owned())];
        assert_eq!(
            held(&told),
            [
                ("ESTABLISHED".to_owned(), own.clone()),
                ("LISTEN".to_owned(), own)
            ]
        );
    }
    // What it has is at 127.0.0.1: another address is free.
    let (told, status) = port(address.port(), &["--address", "127.0.0.2"]);
    assert_eq!(status, 0, "{told:#}");
}

fn a_listener_of_a_child() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let child = victim.forks("fork");
    let (told, status) = port(address.port(), &["--reuseaddr"]);
    assert_eq!(status, 1, "{told:#}");
    let mut both = vec![(victim.pid(), "-".to_owned()), (child, "inherited".to_owned())];
    both.sort_unstable();
    assert_eq!(held(&told), [("LISTEN".to_owned(), both)], "{told:#}");
    let fd = &sockets(&told)[0]["holders"][0]["fd"];
    assert_eq!(fd, &sockets(&told)[0]["holders"][1]["fd"]);
}

/// Nothing tells any more how it came by it, so nothing is said.
fn a_listener_whose_parent_is_gone() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let fd: u32 = victim.does("fd listener").parse().expect("a number");
    let child = victim.forks("fork");
    victim.killed_by(libc::SIGKILL);
    let (told, status) = port(address.port(), &["--reuseaddr"]);
    assert_eq!(status, 1, "{told:#}");
    assert_eq!(
        held(&told),
        [("LISTEN".to_owned(), vec![(child, "-".to_owned())])]
    );
    let verdict = &told["restart"][0]["verdicts"][1];
    let listener =
        json!({"kind": "listener", "count": 1, "state": "LISTEN", "pid": child, "comm": "victim", "fd": fd});
    assert_eq!(verdict["blocked_by"], json!([listener]), "{told:#}");
    assert_eq!(verdict["free_at"], Value::Null, "{told:#}");
}

/// sock_diag does not tell SO_REUSEADDR; a restart with it hangs on that alone.
fn leftovers_have_the_options_of_the_dead() {
    for (options, status_with) in [("4", 1), ("4 reuseaddr", 0)] {
        let (mut victim, peers) = Victim::serving(options, 3);
        let local = peers[0].remote();
        victim.killed_by(libc::SIGKILL);
        wait_until("FIN_WAIT2", || judge::count(local.port(), "FIN_WAIT2") == 3);
        let (told, status) = port(local.port(), &[]);
        assert_eq!((sockets(&told).len(), status), (3, 1), "{told:#}");
        for socket in sockets(&told) {
            assert_eq!(socket["reuseaddr"], options.contains("reuseaddr"), "{socket}");
            assert_eq!(socket["free_rule"], "fin_timeout", "{socket}");
            assert_eq!(socket["holders"], json!([]), "{socket}");
        }
        let plain = &told["restart"][0]["verdicts"][0];
        let leftovers = json!({"kind": "fin_wait2", "count": 3, "state": "FIN_WAIT2", "pid": null, "comm": null, "fd": null});
        assert_eq!(plain["blocked_by"], json!([leftovers]), "{told:#}");
        let last = sockets(&told)
            .iter()
            .map(|socket| moment(&socket["free_at"]))
            .max();
        assert_eq!(Some(moment(&plain["free_at"])), last, "{told:#}");
        let (told, status) = port(local.port(), &["--reuseaddr"]);
        assert_eq!(status, status_with, "{told:#}");
    }
}

/// `ss` shows nothing of it.
fn a_socket_that_is_only_bound() {
    let mut victim = Victim::start();
    let address: std::net::SocketAddr = victim.does("bind 4").parse().expect("an address");
    assert!(judge::of_port(address.port()).is_empty(), "the tables have it");
    let (told, status) = port(address.port(), &["--reuseaddr"]);
    assert_eq!(status, 1, "{told:#}");
    let holders = &sockets(&told)[0]["holders"];
    assert_eq!(holders[0]["pid"], victim.pid(), "{told:#}");
    let blocked_by = &told["restart"][0]["verdicts"][1]["blocked_by"];
    assert_eq!(
        json!([blocked_by[0]["kind"], blocked_by[0]["pid"], blocked_by[1]]),
        json!(["bound", victim.pid(), null])
    );
}

fn the_same_port_in_another_namespace() {
    let mut victim = Victim::start();
    victim.does("own-network");
    let address = victim.listen("4");
    let (told, status) = port(address.port(), &[]);
    assert_eq!(status, 0, "{told:#}");
    let of_the_victim = |socket: &&Value| socket["holders"][0]["pid"] == victim.pid();
    let socket = all_sockets(&told).find(of_the_victim).expect("its listener");
    assert_ne!(socket["netns"], sandbox::inode());
    // There it would fail.
    let there = told["restart"].as_array().expect("a list");
    let there = there.iter().find(|restart| restart["netns"] == socket["netns"]);
    assert_eq!(there.expect("a verdict")["verdicts"][0]["bind"], "in_use");
}

/// The port is the subflow's; the descriptor leads to the MPTCP socket.
fn an_mptcp_listener() {
    let mut victim = Victim::start();
    let address = victim.listen("4 mptcp");
    let (told, status) = port(address.port(), &[]);
    assert_eq!(status, 1, "{told:#}");
    assert_eq!(
        held(&told),
        [("LISTEN".to_owned(), vec![(victim.pid(), "-".to_owned())])],
        "{told:#}"
    );
}

/// That the port is in use shows in the tables that everybody may read; with which options does not.
fn without_root_it_says_what_it_cannot() {
    let (mut victim, peers) = Victim::serving("4", 1);
    let local = peers[0].remote();
    victim.killed_by(libc::SIGKILL);
    wait_until("FIN_WAIT2", || judge::count(local.port(), "FIN_WAIT2") == 1);
    let (_folder, sockleak) = public_copy();
    let told = finish(
        Command::new(&sockleak)
            .args(["port", &local.port().to_string(), "-ojson"])
            .uid(65534)
            .gid(65534),
    );
    let status = told.status;
    let told = parsed(&told);
    assert_eq!(status, 1, "{told:#}");
    assert_eq!(sockets(&told)[0]["state"], "FIN_WAIT2", "{told:#}");
    assert_eq!(sockets(&told)[0]["reuseaddr"], Value::Null, "{told:#}");
    let blind = record::blind_spots(&told["blind"]);
    for id in ["port_list_refused", "namespaces_refused"] {
        assert!(blind.contains(&id), "{told:#}");
    }
    let verdicts = &told["restart"][0]["verdicts"];
    assert_eq!(verdicts[0]["bind"], "in_use", "{told:#}");
    assert_eq!(verdicts[1]["bind"], "unknown", "{told:#}");
    assert!(verdicts[0]["free_at"].is_string(), "{told:#}");
}

/// The kernel numbers processes as the host does, which nobody in a container knows.
fn in_a_container_it_names_whom_it_sees() {
    let mut victim = Victim::start();
    let address = victim.listen("4");
    let mut command = Command::new(programs::sockleak());
    command.args(["port", &address.port().to_string(), "-ojson"]);
    // SAFETY: Between fork() and exec() it makes system calls only. The namespace is that of its children, so
    // the first of them goes on, and it waits for that.
    unsafe { command.pre_exec(sandbox::continue_in_a_new_pid_namespace) };
    let told = finish(&mut command);
    let status = told.status;
    let told = parsed(&told);
    assert_eq!(status, 1, "{told:#}");
    let blind = record::blind_spots(&told["blind"]);
    assert!(blind.contains(&"nested_pid_namespace"), "{told:#}");
    let own = vec![(victim.pid(), "-".to_owned())];
    assert_eq!(held(&told), [("LISTEN".to_owned(), own)], "{told:#}");
}

fn as_text() {
    let (mut victim, peers) = Victim::serving("4", 2);
    let local = peers[0].remote();
    victim.killed_by(libc::SIGKILL);
    wait_until("FIN_WAIT2", || judge::count(local.port(), "FIN_WAIT2") == 2);
    let restart = net::socket(Family::V4.address(0), 0, 0).expect("a socket");
    assert!(net::bind(restart.as_fd(), local).is_err(), "the port is in use");
    let told = run(["port", &local.port().to_string()]);
    assert_eq!(told.status, 1, "{}", told.stderr);
    let text = told.stdout;
    for part in [
        &format!("port {}: 2 sockets", local.port()),
        "FIN_WAIT2",
        "without SO_REUSEADDR",
        &format!("a restart can bind 0.0.0.0:{} from", local.port()),
        "SO_REUSEADDR",
        "2 FIN_WAIT2 are in the way",
    ] {
        let flat = text.replace("\n  ", " ");
        assert!(flat.contains(part), "{part:?} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    drop::<Vec<Peer>>(peers);
}

fn what_is_no_port() {
    for wrong in ["0", "65536", "http", "-1", ""] {
        let told = run(["port", wrong]);
        assert_eq!(told.status, 2, "{wrong:?}: {}", told.stderr);
        assert!(told.stdout.is_empty(), "{wrong:?}");
    }
    let told = run(["port", "80", "--address", "localhost"]);
    assert_eq!(told.status, 2, "{}", told.stderr);
}
