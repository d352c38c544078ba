//! Reports, key by key.

use super::*;

#[test]
fn a_report_has_every_key_in_the_contracts_order() {
    let line = one(|json| json.report(&sample()));
    let expected = [
        "type",
        "v",
        "time",
        "incident",
        "process",
        "death",
        "sockets",
        "summary",
        "left_while_alive",
        "restart",
        "ephemeral",
        "advice",
        "blind",
        "lost",
    ];
    // The name of the child has an escape in it, which the walk over the keys does not read.
    assert_eq!(keys(&line.replace("\\u001b", "")), expected);

    let report = parse(&line);
    assert_eq!(report["process"]["cgroup"], "/system.slice/orderd.service");
    assert_eq!(report["summary"]["fin_wait2"], 150);
    assert_eq!(report["sockets"].as_array().map(Vec::len), Some(203));
    let verdict = |flags: Value, obstacles: Value| {
        json!({"flags": flags, "bind": "in_use", "listen": "in_use", "blocked_by": obstacles, "free_at": null,
               "free_at_latest": null, "earlier_by": null})
    };
    let listener = json!({"kind": "listener", "count": 1, "state": "LISTEN", "pid": 4243, "comm": "worker\u{1b}[2J", "fd": 3});
    let leftover = |kind: &str, count: u64, state: &str| json!({"kind": kind, "count": count, "state": state, "pid": null, "comm": null, "fd": null});
    let everything = json!([
        listener,
        leftover("fin_wait2", 150, "FIN_WAIT2"),
        leftover("fin_wait1", 1, "FIN_WAIT1")
    ]);
    assert_eq!(
        report["restart"],
        json!([{"laddr": "0.0.0.0", "lport": 8080, "v6only": null, "netns": 1, "device": null, "user": null, "verdicts": [
            verdict(json!([]), everything.clone()),
            verdict(json!(["reuseaddr"]), json!([listener])),
            verdict(json!(["reuseport"]), everything),
            verdict(json!(["reuseaddr", "reuseport"]), json!([listener])),
        ]}])
    );
    assert_eq!(report["lost"], json!({"events": 12, "inventory": 0, "slots": 0}));
    assert_eq!(
        report["left_while_alive"],
        json!([{"laddr": "10.0.0.7", "lport": null, "raddr": "10.0.0.5", "rport": 5432, "netns": 1,
                "outcome": "time_wait", "count": 3, "cookies": [900, 901, 902], "last_closed": "2025-10-09T08:53:20.001000000Z",
                "free_at": "2025-10-09T08:54:19.800000000Z", "free_at_latest": "2025-10-09T08:54:21.848000000Z",
                "earlier_by": "syn"}])
    );
}

#[test]
fn a_socket_has_every_key() {
    let report = parse(&one(|json| json.report(&sample())));
    assert_eq!(
        report["sockets"][1],
        json!({"protocol": "tcp", "family": "ipv4", "laddr": "10.0.0.7", "lport": 8080, "raddr": "10.1.2.1",
               "rport": 20000, "netns": 1, "cookie": 100, "fds": [4], "inode": 1000, "subflows": null,
               "state_at_death": "ESTABLISHED", "shutdown": false, "unread_bytes": 0, "unacked_bytes": 0,
               "accept_queue": null, "reuseaddr": true, "reuseport": false, "linger": null,
               "outcome": "fin_wait2", "state": "FIN_WAIT2", "why": "closed_by_kernel",
               "reset_reason": null, "holders": [],
               "transitions": [
                   {"time": "2025-10-09T08:53:20.001000000Z", "from": "ESTABLISHED", "to": "FIN_WAIT1"},
                   {"time": "2025-10-09T08:53:20.002000000Z", "from": "FIN_WAIT1", "to": "FIN_WAIT2"},
                   {"time": "2025-10-09T08:53:20.003000000Z", "from": "FIN_WAIT2", "to": "CLOSE"}],
               "free_rule": "fin_timeout", "free_in_ms": 59700, "free_at": "2025-10-09T08:54:19.800000000Z",
               "free_at_latest": "2025-10-09T08:55:23.896000000Z", "earlier_by": "rst"})
    );
    let listener = &report["sockets"][0];
    assert_eq!(listener["raddr"], Value::Null);
    assert_eq!(listener["rport"], Value::Null);
    assert_eq!(listener["free_rule"], "holder");
    assert_eq!(listener["free_in_ms"], Value::Null);
    assert_eq!(
        listener["holders"],
        json!([{"pid": 4243, "comm": "worker\u{1b}[2J", "fd": 3, "how": "inherited"}])
    );
}

#[test]
fn the_subflows_of_mptcp_are_told_apart() {
    let subflow = socket(State::Established).with(|subflow| {
        subflow.cookie = Some(8);
        subflow.inode = None;
    });
    let mptcp = socket(State::Established).with(|mptcp| {
        mptcp.protocol = Protocol::Mptcp;
        mptcp.subflows.push(subflow.clone().build());
        mptcp.subflows_complete = true;
    });
    let left = sighting(&subflow.build(), State::TimeWait);
    let report = examine(evidence(vec![mptcp.clone().build()], vec![left]));
    let report = parse(&one(|json| json.report(&report)));
    let entry = &report["sockets"][0];
    assert_eq!(
        json!([entry["protocol"], entry["cookie"], entry["outcome"]]),
        json!(["mptcp", 7, "time_wait"])
    );
    assert_eq!(
        entry["subflows"],
        json!([{"laddr": "127.0.0.1", "lport": 8080, "raddr": "127.0.0.1", "rport": 40310, "cookie": 8,
                "state_at_death": "ESTABLISHED", "outcome": "time_wait", "state": "TIME_WAIT",
                "why": "closed_by_kernel", "transitions": [], "free_rule": "timewait_timer",
                "free_at": "2025-10-09T08:54:19.800000000Z",
                "free_at_latest": "2025-10-09T08:54:21.848000000Z", "earlier_by": "syn"}])
    );
    let unknown = mptcp.with(|mptcp| {
        mptcp.subflows.clear();
        mptcp.subflows_complete = false;
    });
    let report = examine(evidence(vec![unknown.build()], Vec::new()));
    let report = parse(&one(|json| json.report(&report)));
    assert_eq!(report["sockets"][0]["subflows"], Value::Null);
}

#[test]
fn a_summary_has_no_sockets_and_a_living_process_no_death() {
    let mut evidence = evidence(vec![socket(State::Listen).build()], Vec::new());
    evidence.death = None;
    let report = examine(evidence);
    let lines = lines(true, |json| json.report(&report));
    let parsed = parse(&lines[0]);
    assert_eq!(parsed["sockets"], Value::Null);
    assert_eq!(parsed["death"], Value::Null);
    assert_eq!(parsed["summary"]["closed"], 1);
    let summed = self::lines(true, |json| json.report(&sample()));
    let group = &parse(&summed[0])["left_while_alive"][0];
    assert_eq!((&group["count"], &group["cookies"]), (&json!(3), &Value::Null));
}
