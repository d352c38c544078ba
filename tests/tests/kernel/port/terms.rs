//! What decides a `bind()` besides the addresses in the way: devices, users, and whether an address can be had at all.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sockleak_tests::record;
use sockleak_tests::sandbox::{add_device, own_address, sysctl};
use sockleak_tests::tracer::{Tracer, run};
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            devices_share_a_port,
            an_address_that_is_not_local,
            the_dead_may_have_had_an_address_that_is_not_local,
            a_low_port_takes_a_right,
            reuseport_is_of_one_user,
            who_is_no_user_and_what_is_no_device,
        ],
    );
    tests.extend(sandboxed(&[Need::Vrf], named![a_vrf_has_ports_of_its_own]));
    tests.extend(sandboxed(
        &[Need::Ipv6],
        named![addresses_that_no_socket_may_have],
    ));
    tests.extend(sandboxed(
        &[Need::Mptcp, Need::Ipv6],
        named![an_mptcp_socket_has_the_address_of_its_subflow],
    ));
    tests
}

/// Another user than root.
const USER: u32 = 4711;
/// For documentation: no device has it.
const NOT_LOCAL: &str = "192.0.2.9";

/// What `port` says of this namespace's restart with these options: its first verdict, and the exit status.
#[track_caller]
fn port(number: u16, options: &str) -> (Value, Value, i32) {
    let number = number.to_string();
    let arguments = ["port", &number, "-ojson"].into_iter();
    let told = run(arguments.chain(options.split_whitespace()));
    let answer = record::of(&told.stdout);
    let restart = answer["restart"].as_array().expect("a list");
    let own = restart.iter().find(|restart| restart["netns"] == answer["netns"]);
    let own = own.expect("a verdict of this namespace").clone();
    let flags: Vec<&str> = ["reuseaddr", "reuseport"]
        .into_iter()
        .filter(|flag| options.contains(&format!("--{flag}")))
        .collect();
    let verdicts = own["verdicts"].as_array().expect("a list");
    let verdict = verdicts.iter().find(|verdict| verdict["flags"] == json!(flags));
    let verdict = verdict.expect("a verdict for these options").clone();
    (own, verdict, told.status)
}

/// `port` says what `bind()` and `listen()` say to such a socket of that process; the word for it.
#[track_caller]
fn agrees(restarting: &mut Victim, port: u16, socket: &str, options: &str) -> String {
    let (address, rest) = socket.split_once(' ').unwrap_or((socket, ""));
    let place = if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    };
    let really = restarting.does(&format!("restart {place} {rest}"));
    let (_, verdict, status) = self::port(port, &format!("--address {address} {options}"));
    let told = format!(
        "{} {}",
        verdict["bind"].as_str().expect("a word"),
        verdict["listen"].as_str().expect("a word")
    );
    assert_eq!(told, really, "{socket} with {options}: {verdict:#}");
    assert_eq!(status, i32::from(really != "ok ok"), "{socket} with {options}");
    really
}

fn devices_share_a_port() {
    add_device(c"v0", "veth").expect("the kernel has veth");
    let mut restarting = Victim::start();
    let mut victim = Victim::start();
    let number = victim.listen("any device=lo").port();
    for (device, expected) in [("v0", "ok ok"), ("lo", "in_use in_use")] {
        let socket = format!("0.0.0.0 device={device}");
        let answer = agrees(&mut restarting, number, &socket, &format!("--device {device}"));
        assert_eq!(answer, expected, "{device}");
    }
    assert_eq!(agrees(&mut restarting, number, "0.0.0.0", ""), "in_use in_use");
    let text = run(["port", &number.to_string(), "--device", "v0"]).stdout;
    for words in [
        "1  0.0.0.0%lo ".to_owned(),
        format!("LISTEN 0.0.0.0%lo:{number} (fd "),
        format!("can bind 0.0.0.0%v0:{number} now"),
    ] {
        assert!(text.contains(&words), "{words} is not in\n{text}");
    }
    let (restart, ..) = port(number, "--device v0 --address 0.0.0.0");
    assert_eq!((&restart["device"], &restart["user"]), (&json!("v0"), &json!(0)));

    let mut other = Victim::start();
    assert_eq!(
        other.listen(&format!("any device=v0 port={number}")).port(),
        number
    );
    let mut tracer = Tracer::attach(victim.pid(), &[]);
    victim.killed_by(libc::SIGKILL);
    let report = tracer.report();
    let restart = &report["restart"][0];
    assert_eq!(restart["device"], "lo", "{report}");
    assert_eq!(restart["verdicts"][0]["listen"], "ok", "{report}");
    let really = restarting.does(&format!("restart 0.0.0.0:{number} device=lo"));
    assert_eq!(really, "ok ok");
}

fn a_vrf_has_ports_of_its_own() {
    add_device(c"red", "vrf").expect("it is needed");
    let mut restarting = Victim::start();
    let mut victim = Victim::start();
    let number = victim.listen("any device=red").port();
    assert_eq!(agrees(&mut restarting, number, "0.0.0.0", ""), "ok ok");
    let red = agrees(&mut restarting, number, "0.0.0.0 device=red", "--device red");
    assert_eq!(red, "in_use in_use");
    sysctl("ipv4/tcp_l3mdev_accept", 1);
    let mut shared = Victim::start();
    let number = shared.listen("any device=red").port();
    assert_eq!(agrees(&mut restarting, number, "0.0.0.0", ""), "in_use in_use");
}

fn an_address_that_is_not_local() {
    let mut restarting = Victim::start();
    let answer = agrees(&mut restarting, 8080, NOT_LOCAL, "");
    assert_eq!(answer, "not_available not_available");
    let text = run(["port", "8080", "--address", NOT_LOCAL]).stdout;
    assert!(
        text.contains("EADDRNOTAVAIL") && text.contains("ip_nonlocal_bind"),
        "{text}"
    );
    sysctl("ipv4/ip_nonlocal_bind", 1);
    assert_eq!(agrees(&mut restarting, 8080, NOT_LOCAL, ""), "ok ok");
    sysctl("ipv4/ip_nonlocal_bind", 0);
    own_address(NOT_LOCAL.parse().expect("an address"));
    assert_eq!(agrees(&mut restarting, 8080, NOT_LOCAL, ""), "ok ok");
}

fn the_dead_may_have_had_an_address_that_is_not_local() {
    let mut restarting = Victim::start();
    for (option, expected) in [("freebind", "ok"), ("", "not_available")] {
        sysctl("ipv4/ip_nonlocal_bind", 1);
        let mut victim = Victim::start();
        let number = victim.listen(&format!("{NOT_LOCAL} {option}")).port();
        sysctl("ipv4/ip_nonlocal_bind", 0);
        let mut tracer = Tracer::attach(victim.pid(), &[]);
        victim.killed_by(libc::SIGKILL);
        let report = tracer.report();
        assert_eq!(report["restart"][0]["verdicts"][0]["bind"], expected, "{report}");
        let really = restarting.does(&format!("restart {NOT_LOCAL}:{number} {option}"));
        assert_eq!(really, format!("{expected} {expected}"));
    }
}

fn addresses_that_no_socket_may_have() {
    let mut restarting = Victim::start();
    for socket in ["::ffff:127.0.0.1 v6only", "fe80::1"] {
        let options = if socket.contains("v6only") { "--v6only" } else { "" };
        let answer = agrees(&mut restarting, 8080, socket, options);
        assert_eq!(answer, "invalid invalid", "{socket}");
    }
    assert_eq!(agrees(&mut restarting, 8080, "::ffff:127.0.0.1", ""), "ok ok");
}

fn a_low_port_takes_a_right() {
    let mut root = Victim::start();
    let mut nobody = Victim::start();
    nobody.does(&format!("become {USER}"));
    let user = format!("--user {USER}");
    assert_eq!(agrees(&mut nobody, 80, "0.0.0.0", &user), "permission permission");
    assert_eq!(agrees(&mut root, 80, "0.0.0.0", "--user root"), "ok ok");
    let (_, verdict, _) = port(80, "--address 0.0.0.0");
    assert_eq!(verdict["bind"], "ok", "nobody asked for a user");
    sysctl("ipv4/ip_unprivileged_port_start", 80);
    assert_eq!(agrees(&mut nobody, 80, "0.0.0.0", &user), "ok ok");
}

fn reuseport_is_of_one_user() {
    let mut victim = Victim::start();
    let mut restarting = Victim::start();
    let number = victim.listen(&format!("4 reuseport user={USER}")).port();
    for (uid, expected) in [(USER, "ok ok"), (0, "in_use in_use")] {
        let socket = format!("127.0.0.1 reuseport user={uid}");
        let options = format!("--reuseport --user {uid}");
        assert_eq!(
            agrees(&mut restarting, number, &socket, &options),
            expected,
            "{uid}"
        );
    }
    let (restart, verdict, status) = port(number, "--reuseport --address 127.0.0.1");
    assert_eq!(
        (&restart["user"], &verdict["bind"], status),
        (&json!(USER), &json!("ok"), 0)
    );

    // Whoever joined two users would be of neither.
    let mut other = Victim::start();
    other.listen(&format!("127.0.0.2 reuseport port={number}"));
    for uid in [USER, 0] {
        let socket = format!("0.0.0.0 reuseport user={uid}");
        let options = format!("--reuseport --user {uid}");
        let answer = agrees(&mut restarting, number, &socket, &options);
        assert_eq!(answer, "in_use in_use", "{uid}");
    }
    assert_eq!(port(number, "--reuseport --address 0.0.0.0").2, 1);
    for (address, uid) in [("127.0.0.1", USER), ("127.0.0.2", 0)] {
        let (restart, ..) = port(number, &format!("--reuseport --address {address}"));
        assert_eq!(restart["user"], uid, "who has {address} is meant");
    }
}

fn who_is_no_user_and_what_is_no_device() {
    for (option, value, words) in [
        ("--user", "no-such-user", "there is no user no-such-user"),
        ("--device", "no-such-device", "there is no device no-such-device"),
    ] {
        let refused = run(["port", "8080", option, value]);
        assert_eq!((refused.status, refused.stdout.as_str()), (2, ""));
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

fn an_mptcp_socket_has_the_address_of_its_subflow() {
    let mut victim = Victim::start();
    let mut restarting = Victim::start();
    let bound = victim.does("bind 6 mptcp");
    let number = bound.rsplit(':').next().and_then(|port| port.parse().ok());
    let number = number.expect("a port");
    for (socket, expected) in [
        ("0.0.0.0", "ok ok"),
        ("127.0.0.1", "ok ok"),
        ("::1", "in_use in_use"),
        ("::", "in_use in_use"),
    ] {
        assert_eq!(agrees(&mut restarting, number, socket, ""), expected, "{socket}");
    }
}
