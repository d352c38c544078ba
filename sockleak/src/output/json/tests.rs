//! The format that programs rely on.

mod reports;

use serde_json::{Value, json};
use sockleak_core::expiry::FreeRule;
use sockleak_core::expiry::Freedom;
use sockleak_core::leftover::{Attempt, DiscardRule, Power, Powers, Removal, leftovers};
use sockleak_core::observed::{
    Cause, Death, OpenSockets, ProcessChange, Protocol, Sender, Sighting, State, Timer, WatchedProcess,
};
use sockleak_core::testing::{addr, at, evidence, process, sample, sighting, socket};
use sockleak_core::verdict::{Holder, examine};

use super::*;
use crate::output::Subject;

fn lines(
    summary: bool,
    print: impl FnOnce(&mut Json<&mut Vec<u8>, Vec<u8>>) -> io::Result<()>,
) -> Vec<String> {
    let mut written = Vec::new();
    let mut json = Json::new(&mut written, LiveLine::new(Vec::new(), None), summary);
    print(&mut json).expect("a Vec takes everything");
    drop(json);
    let text = String::from_utf8(written).expect("JSON is UTF-8");
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn one(print: impl FnOnce(&mut Json<&mut Vec<u8>, Vec<u8>>) -> io::Result<()>) -> String {
    let [line] = &lines(false, print)[..] else {
        panic!("an event is one line");
    };
    line.clone()
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("each line is JSON")
}

/// The keys of the outermost object in the order that they are written in.
fn keys(line: &str) -> Vec<String> {
    let mut depth = 0;
    let mut keys = Vec::new();
    let mut rest = line;
    while let Some(place) = rest.find(['{', '}', '[', ']', '"']) {
        let (sign, after) = (rest.as_bytes()[place], &rest[place + 1..]);
        rest = after;
        match sign {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {
                let end = after.find('"').expect("a string ends; the tests have no escapes");
                rest = &after[end + 1..];
                if depth == 1 && rest.starts_with(':') {
                    keys.push(after[..end].to_owned());
                }
            }
        }
    }
    keys
}

#[test]
fn events_are_as_the_contract_says() {
    let watch = |sockets| {
        one(|json| {
            json.watch(&Watching {
                time: at(0),
                processes: vec![WatchedProcess {
                    pid: 4242,
                    parent: 1,
                    comm: "orderd".into(),
                    target: true,
                }],
                sockets,
                kernel: "6.12.107".into(),
                hooks: vec!["sched_process_exit".into()],
                hz: 250,
            })
        })
    };
    assert!(watch(None).contains(r#""listeners":null,"connections":null"#));
    assert_eq!(
        watch(Some(OpenSockets {
            listeners: 1,
            connections: 412
        })),
        r#"{"type":"watch","v":2,"time":"2025-10-09T08:53:20.000000000Z","pids":[4242],"listeners":1,"connections":412,"kernel":"6.12.107","hooks":["sched_process_exit"]}"#
    );
    let transition = one(|json| {
        json.transition(&SocketTransition {
            time: at(0),
            pid: 4242,
            comm: "orderd".into(),
            local: addr("10.0.0.7:40310"),
            remote: Some(addr("10.0.0.5:5432")),
            from: State::Established,
            to: State::FinWait1,
        })
    });
    assert_eq!(
        transition,
        r#"{"type":"transition","v":2,"time":"2025-10-09T08:53:20.000000000Z","pid":4242,"comm":"orderd","laddr":"10.0.0.7","lport":40310,"raddr":"10.0.0.5","rport":5432,"from":"ESTABLISHED","to":"FIN_WAIT1"}"#
    );
    let forked = one(|json| {
        json.process(&ProcessEvent {
            time: at(0),
            pid: 4242,
            comm: "orderd".into(),
            change: ProcessChange::Forked { child: 4243 },
        })
    });
    assert_eq!(
        forked,
        r#"{"type":"process","v":2,"time":"2025-10-09T08:53:20.000000000Z","event":"fork","pid":4242,"comm":"orderd","child":4243}"#
    );
    let loss = Loss {
        time: at(0),
        events: 12,
        processes: 1,
    };
    let lost = one(|json| json.lost(&loss));
    assert_eq!(
        lost,
        r#"{"type":"lost","v":2,"time":"2025-10-09T08:53:20.000000000Z","events":12,"processes":1}"#
    );
}

#[test]
fn a_death_names_its_signal() {
    let mut died = Death {
        time: at(0),
        cause: Cause::Signal {
            signal: 11,
            core_dumped: true,
        },
        oom: false,
        sent_by: Some(Sender {
            pid: 77,
            comm: "bash".into(),
        }),
        core_dump: Some(std::time::Duration::from_millis(4200)),
        dump_interrupted: None,
    };
    let line = |died: &Death| {
        let report = Report {
            process: process(),
            death: Some(died.clone()),
            ..sample()
        };
        parse(&one(|json| json.death(&report)))
    };
    assert_eq!(
        line(&died)["death"],
        json!({"time": "2025-10-09T08:53:20.000000000Z", "cause": "signal", "signal": 11, "signal_name": "SEGV",
               "core_dumped": true, "exit_code": null, "oom": false, "sent_by": {"pid": 77, "comm": "bash"},
               "core_dump_ms": 4200, "dump_interrupted": null})
    );
    died.cause = Cause::Exit { code: 3 };
    let line = line(&died);
    assert_eq!(line["death"]["cause"], "exit");
    assert_eq!(line["death"]["exit_code"], 3);
    assert_eq!(line["death"]["signal"], Value::Null);
}

#[test]
fn what_moved_has_its_new_moment() {
    let report = sample();
    let mut leftover = leftovers(&report).nth(1).unwrap();
    leftover.state = State::TimeWait;
    leftover.freedom = Freedom::new(FreeRule::TimewaitTimer, Some(at(90_000)), None);
    let line = one(|json| json.moved(at(30_000), std::slice::from_ref(&leftover)));
    assert_eq!(
        line,
        r#"{"type":"moved","v":2,"time":"2025-10-09T08:53:50.000000000Z","pid":4242,"laddr":"10.0.0.7","lport":8080,"raddr":"10.1.2.1","rport":20000,"outcome":"time_wait","state":"TIME_WAIT","free_rule":"timewait_timer","free_at":"2025-10-09T08:54:50.000000000Z","free_at_latest":null,"earlier_by":"syn"}"#
    );
}

#[test]
fn what_is_freed_is_bracketed() {
    let report = sample();
    let mut leftover = leftovers(&report).nth(1).unwrap();
    leftover.freedom = Freedom::open(FreeRule::TimewaitTimer);
    let freed = Freed {
        leftover,
        not_before: at(60_000),
        time: at(60_500),
    };
    let line = one(|json| json.freed(std::slice::from_ref(&freed)));
    assert_eq!(
        line,
        r#"{"type":"freed","v":2,"pid":4242,"laddr":"10.0.0.7","lport":8080,"raddr":"10.1.2.1","rport":20000,"not_before":"2025-10-09T08:54:20.000000000Z","time":"2025-10-09T08:54:20.500000000Z","free_rule":"timewait_timer"}"#
    );
    assert_eq!(lines(false, |json| json.freed(&[freed.clone(), freed])).len(), 2);
}

#[test]
fn a_closed_pipe_is_told_as_one() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = Json::new(Closed, LiveLine::new(Vec::new(), None), false)
        .report(&sample())
        .expect_err("nobody reads it");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_destruction_is_one_line_for_each_socket() {
    let powers = Powers {
        time_wait: Power::Works,
        orphan: Power::Works,
    };
    let seen = Sighting {
        local: addr("10.0.0.7:8080"),
        remote: addr("10.0.0.8:40310"),
        cookie: 4711,
        send_queue: 101,
        timer: Timer::Retransmit,
        ..sighting(&socket(State::Established).build(), State::FinWait1)
    };
    let mut destroyed = Removal::plan(7, &seen, &DiscardRule::Always, &powers);
    destroyed.conclude(Attempt::Done, None);
    let listener = Sighting {
        remote: addr("0.0.0.0:0"),
        state: State::Listen,
        inode: 70,
        ..seen
    };
    let mut skipped = Removal::plan(7, &listener, &DiscardRule::Always, &powers);
    skipped.holders.push(Holder {
        pid: 77,
        comm: "nginx".into(),
        fd: 3,
        how: None,
    });
    let removals = Removals {
        time: at(0),
        subject: Subject::Port(8080),
        removals: vec![destroyed, skipped],
        notes: Vec::new(),
    };
    let lines = lines(false, |json| json.removals(&removals));
    let expected = concat!(
        r#"{"type":"free","v":2,"time":"2025-10-09T08:53:20.000000000Z","laddr":"10.0.0.7","lport":8080,"#,
        r#""raddr":"10.0.0.8","rport":40310,"netns":7,"cookie":4711,"state":"FIN_WAIT1","action":"destroyed","#,
        r#""reason":null,"hazard":"data_lost","lost_bytes":100,"holders":[],"port_holders":[]}"#,
    );
    assert_eq!(lines[0], expected);
    assert_eq!(keys(&lines[1]), keys(&lines[0]));
    let skipped = parse(&lines[1]);
    assert_eq!(
        json!([
            skipped["raddr"],
            skipped["action"],
            skipped["reason"],
            skipped["hazard"],
            skipped["lost_bytes"]
        ]),
        json!([null, "skipped", "listener", null, null])
    );
    assert_eq!(
        skipped["holders"],
        json!([{"pid": 77, "comm": "nginx", "fd": 3, "how": null}])
    );
}
