//! A replay judges, it does not reprint: a fact that is changed in a recording changes the verdict, as that fact demands,
//! and nothing that is said of other processes.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::recording::{Recording, Replayed, advice, entry, restart, socket};

/// What is said of the death of `comm` before and after a change of the recording. Of all others the same is said.
#[track_caller]
fn said_of(comm: &str, recording: &Recording, change: impl Fn(&mut Recording)) -> (Value, Value) {
    let mut changed = recording.clone();
    change(&mut changed);
    assert_ne!(
        changed.lines, recording.lines,
        "{}: nothing was changed",
        recording.name
    );
    let (before, after) = (recording.replay(&[]), changed.replay(&[]));
    let report = before.report(comm);
    let is_other = |other: &&Value| other["process"]["pid"] != report["process"]["pid"];
    let others = |replayed: &Replayed| replayed.reports().filter(is_other).cloned().collect::<Vec<_>>();
    assert!(
        others(&before) == others(&after),
        "{}: another's report is changed",
        recording.name
    );
    (report.clone(), after.report(comm).clone())
}

#[track_caller]
fn moment(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).expect("a time")
}

fn is_listener(socket: &Value) -> bool {
    socket["state_at_death"] == "LISTEN"
}

#[test]
fn reuseaddr_of_what_is_left_lets_a_restart_bind() {
    for recording in Recording::all() {
        let (before, after) = said_of("server", &recording, |recording| {
            for owner in recording.look("server")["owners"].as_array_mut().expect("a list") {
                owner["reuse"]["addr"] = true.into();
            }
        });
        let blocked = json!(["in_use", ["time_wait", "fin_wait2", "fin_wait1"]]);
        assert_eq!(restart(&before, &["reuseaddr"]), blocked);
        assert_eq!(restart(&after, &["reuseaddr"]), json!(["ok", []]));
        assert_eq!(restart(&after, &[]), blocked, "the new socket lacks it still");
    }
}

#[test]
fn reuseaddr_of_the_dead_listener_needs_no_advice() {
    for recording in Recording::all() {
        let (before, after) = said_of("server", &recording, |recording| {
            let sockets = &mut recording.evidence("server")["sockets"];
            entry(sockets, "state_at_death", "LISTEN")["reuseaddr"] = true.into();
        });
        assert!(advice(&before).contains(&"listener_without_reuseaddr"));
        assert!(!advice(&after).contains(&"listener_without_reuseaddr"));
        assert_eq!(
            restart(&after, &["reuseaddr"]),
            restart(&before, &["reuseaddr"]),
            "what it left lacks it still"
        );
    }
}

/// The connection of the other end at that address.
fn connected_to<'a>(report: &'a Value, remote: &Value) -> &'a Value {
    let port = remote
        .as_str()
        .and_then(|remote| remote.rsplit(':').next()?.parse::<u16>().ok());
    let port = Value::from(port.expect("an address"));
    socket(report, |socket| socket["rport"] == port)
}

#[test]
fn a_timer_says_when_a_socket_is_free() {
    for mut recording in Recording::all() {
        let sightings = &mut recording.look("server")["sightings"];
        let remote = entry(sightings, "state", "TIME_WAIT")["remote"].clone();
        let (before, after) = said_of("server", &recording, |recording| {
            let sightings = &mut recording.look("server")["sightings"];
            let expires = &mut entry(sightings, "remote", remote.clone())["expires"];
            expires["secs"] = (expires["secs"].as_u64().expect("a number") + 7).into();
        });
        let free_at = |report: &Value, key: &str| moment(&connected_to(report, &remote)[key]);
        let seven = SignedDuration::from_secs(7);
        assert_eq!(free_at(&after, "free_at"), free_at(&before, "free_at") + seven);
        assert!(free_at(&after, "free_at_latest") >= free_at(&before, "free_at_latest") + seven);
    }
}

#[test]
fn a_holder_says_who_has_a_socket() {
    for recording in Recording::all() {
        let inode = |recording: &mut Recording| {
            let sockets = &mut recording.evidence("parent")["sockets"];
            entry(sockets, "state_at_death", "LISTEN")["inode"].clone()
        };
        let (before, renamed) = said_of("parent", &recording, |recording| {
            let inode = inode(recording);
            entry(&mut recording.evidence("parent")["holdings"], "inode", inode)["pid"] = 77.into();
        });
        assert_eq!(socket(&before, is_listener)["why"], "inherited");
        assert_eq!(socket(&renamed, is_listener)["holders"][0]["pid"], 77);

        let (before, after) = said_of("parent", &recording, |recording| {
            let inode = inode(recording);
            let holdings = recording.evidence("parent")["holdings"].as_array_mut();
            holdings
                .expect("a list")
                .retain(|holding| holding["inode"] != inode);
        });
        let listener = socket(&after, is_listener);
        assert_eq!(
            json!([listener["outcome"], listener["why"], listener["holders"]]),
            json!(["held", "in_kernel", []]),
            "it is open, and nobody has a descriptor"
        );
        assert!(advice(&before).contains(&"inherited_listener"));
        assert!(!advice(&after).contains(&"inherited_listener"));
    }
}

#[test]
fn a_direction_says_whose_port_it_is() {
    for recording in Recording::all() {
        let (before, after) = said_of("client", &recording, |recording| {
            swap_addresses(recording.evidence("client"));
            swap_addresses(recording.look("client"));
        });
        let closed = |report: &Value| {
            let group = &report["left_while_alive"][0];
            json!([group["count"], group["outcome"], group["lport"], group["rport"]])
        };
        assert_eq!(closed(&before), json!([2, "fin_wait2", null, 9090]));
        assert_eq!(closed(&after), json!([2, "fin_wait2", 9090, null]));
        let destinations = |report: &Value| report["ephemeral"].as_array().map(Vec::len);
        assert_eq!(destinations(&before), Some(1));
        assert_eq!(destinations(&after), Some(0), "no port of its own is gone");
    }
}

/// Turns every connection to the port that the client connects to around.
fn swap_addresses(value: &mut Value) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(swap_addresses),
        Value::Object(members) => {
            let remote = members.get("remote").and_then(Value::as_str).unwrap_or_default();
            if remote.ends_with(":9090") {
                let remote = members["remote"].take();
                members["remote"] = std::mem::replace(&mut members["local"], remote);
            }
            members.values_mut().for_each(swap_addresses);
        }
        _ => {}
    }
}

/// The connection of the server whose client sent what it did not read.
fn unread(recording: &mut Recording) -> &mut Value {
    entry(&mut recording.evidence("server")["sockets"], "unread_bytes", 12)
}

/// Outcome and reason of the connection of the other end at that address.
fn end_of(report: &Value, remote: &Value) -> Value {
    let socket = connected_to(report, remote);
    json!([socket["outcome"], socket["why"]])
}

#[test]
fn unread_bytes_are_why_the_kernel_resets() {
    for mut recording in Recording::all() {
        // The bytes alone say so where the event was missed.
        unread(&mut recording)["reset_sent"] = Value::Null;
        let remote = unread(&mut recording)["remote"].clone();
        let (before, after) = said_of("server", &recording, |recording| {
            unread(recording)["unread_bytes"] = 0.into();
        });
        assert_eq!(end_of(&before, &remote), json!(["reset", "unread_data"]));
        assert_eq!(end_of(&after, &remote), json!(["closed", "unknown"]));
        assert!(advice(&before).contains(&"unread_data_reset"));
        assert!(!advice(&after).contains(&"unread_data_reset"));

        let (_, more) = said_of("server", &recording, |recording| {
            unread(recording)["unread_bytes"] = 13.into();
        });
        let mut more = more;
        let evidence = &entry(&mut more["advice"], "id", "unread_data_reset")["evidence"];
        assert_eq!(evidence["unread_bytes"], 13);
    }
}

#[test]
fn a_reset_that_came_is_the_peers() {
    for mut recording in Recording::all() {
        let remote = unread(&mut recording)["remote"].clone();
        let (before, after) = said_of("server", &recording, |recording| {
            unread(recording)["reset_sent"] = Value::Null;
            unread(recording)["reset_received"] = json!({"state": "ESTABLISHED"});
        });
        assert_eq!(end_of(&before, &remote), json!(["reset", "unread_data"]));
        assert_eq!(end_of(&after, &remote), json!(["reset", "peer_reset"]));
        assert!(!advice(&after).contains(&"unread_data_reset"));
    }
}

#[test]
fn a_socket_with_another_cookie_is_another_one() {
    for mut recording in Recording::all() {
        let sightings = &mut recording.look("server")["sightings"];
        let remote = entry(sightings, "state", "FIN_WAIT1")["remote"].clone();
        let (before, after) = said_of("server", &recording, |recording| {
            let sockets = &mut recording.evidence("server")["sockets"];
            entry(sockets, "remote", remote.clone())["cookie"] = 1.into();
        });
        assert_eq!(end_of(&before, &remote), json!(["fin_wait1", "peer_unreachable"]));
        assert_eq!(
            end_of(&after, &remote),
            json!(["unknown", "unknown"]),
            "nothing shows its end, and what has its addresses is not it"
        );
    }
}

#[test]
fn orphan_retries_say_when_the_kernel_gives_up() {
    for recording in Recording::all() {
        let (before, after) = said_of("server", &recording, |recording| {
            let look = recording.look("server");
            assert_eq!(look["orphan_retries"], 8, "the default");
            look["orphan_retries"] = 3.into();
        });
        let gives_up = |report: &Value| {
            let socket = socket(report, |socket| socket["outcome"] == "fin_wait1");
            assert_eq!(socket["free_rule"], "retransmits", "{socket}");
            moment(&socket["free_at"])
        };
        let sooner = gives_up(&before).duration_since(gives_up(&after));
        assert!(
            sooner > SignedDuration::from_secs(60),
            "five of eight doublings fewer make it {sooner} sooner"
        );
    }
}

/// Older recordings do not have the sysctls that say what follows a late answer.
#[test]
fn the_fin_timeout_says_what_a_late_answer_leaves() {
    for recording in Recording::all() {
        let (before, after) = said_of("server", &recording, |recording| {
            let timeouts = json!({"fin_timeout": {"secs": 60, "nanos": 0}, "retries2": 15,
                                  "rto_max": {"secs": 120, "nanos": 0}});
            recording.look("server")["tcp_timeouts"] = timeouts;
        });
        let orphan = |report: &Value| socket(report, |socket| socket["outcome"] == "fin_wait1").clone();
        let (before, after) = (orphan(&before), orphan(&after));
        assert_eq!(before["free_at"], after["free_at"]);
        assert_eq!(before["free_at_latest"], Value::Null, "{before}");
        let life = moment(&after["free_at_latest"]).duration_since(moment(&after["free_at"]));
        assert!(life > SignedDuration::from_secs(120), "{after}");
    }
}

#[test]
fn the_range_of_local_ports_says_how_many_are_left() {
    for recording in Recording::all() {
        let (before, after) = said_of("client", &recording, |recording| {
            let range = &mut recording.look("client")["local_ports"]["range"];
            assert_eq!(*range, json!({"start": 32768, "end": 60999}), "the default");
            range["end"] = 61_099.into();
        });
        let counted = |report: &Value, key: &str| report["ephemeral"][0][key].as_u64();
        assert_eq!(counted(&before, "range_total"), Some(28_232));
        assert_eq!(counted(&after, "range_total"), Some(28_332));
        let more = counted(&before, "available").map(|available| available + 100);
        assert_eq!(counted(&after, "available"), more);
    }
}

#[test]
fn a_signal_says_how_it_died() {
    for recording in Recording::all() {
        let (before, after) = said_of("server", &recording, |recording| {
            recording.evidence("server")["death"]["cause"]["signal"]["signal"] = 6.into();
        });
        let told = |report: &Value| json!([report["death"]["signal"], report["death"]["signal_name"]]);
        assert_eq!(told(&before), json!([11, "SEGV"]));
        assert_eq!(told(&after), json!([6, "ABRT"]));
    }
}

#[test]
fn a_status_of_zero_is_no_failure() {
    for recording in Recording::all() {
        let mut changed = recording.clone();
        changed.evidence("old")["death"]["cause"] = json!({"exit": {"code": 0}});
        let is_shown = |recording: &Recording| {
            let replayed = recording.replay(&["--failed"]);
            let mut reports = replayed.reports();
            reports.any(|report| report["process"]["comm"] == "old")
        };
        assert!(is_shown(&recording));
        assert!(!is_shown(&changed), "{}", recording.name);
    }
}

#[test]
fn another_uid_does_not_share_a_port() {
    for recording in Recording::all() {
        let (before, after) = said_of("old", &recording, |recording| {
            let sockets = &mut recording.evidence("old")["sockets"];
            entry(sockets, "state_at_death", "LISTEN")["uid"] = 1000.into();
        });
        assert_eq!(restart(&before, &["reuseport"]), json!(["ok", []]));
        assert_eq!(
            restart(&after, &["reuseport"]),
            json!(["in_use", ["listener"]]),
            "the other listener is root's"
        );
    }
}
