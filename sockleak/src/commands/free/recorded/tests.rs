use std::sync::Arc;

use sockleak_core::event::Event;
use sockleak_core::recording::{self, Encoder, FORMAT, Header};
use sockleak_core::testing::{self, addr};
use sockleak_core::verdict::Report as Written;

use super::*;
use crate::output::{Json, LiveLine};
use crate::sinks::Sink as _;

fn written(report: &Written, summary: bool) -> Vec<u8> {
    let mut text = Vec::new();
    let mut json = Json::new(&mut text, LiveLine::new(Vec::new(), None), summary);
    json.take(&Event::Report(Arc::new(report.clone()))).unwrap();
    drop(json);
    text
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let report = testing::sample();
    let closed = &report.left_while_alive[0];
    let mut text = b"not of sockleak\n{\"type\":\"lost\",\"v\":1,\"events\":1}\n\xff\n".to_vec();
    text.extend(written(&report, false));
    text.extend(written(&report, false));
    let recording = parse(&text[..], &LIMITS).unwrap();
    let expected: Vec<Recorded> = report
        .sockets
        .iter()
        .filter(|socket| !matches!(socket.outcome, Outcome::Closed | Outcome::Reset))
        .map(|socket| Recorded {
            netns: socket.socket.netns,
            local: socket.socket.local,
            remote: socket.socket.remote,
            cookie: socket.socket.cookie.or(socket.seen_cookie),
        })
        .chain(closed.cookies.iter().map(|cookie| Recorded {
            netns: closed.netns,
            local: addr("10.0.0.7:0"),
            remote: Some(addr("10.0.0.5:5432")),
            cookie: Some(*cookie),
        }))
        .collect();
    assert_eq!((closed.count, closed.cookies.len()), (3, 3));
    assert_eq!(recording.sockets, expected);
    assert!(recording.unnamed.is_empty() && recording.unnamed.note().is_none());
}

/// Each line is one that `sockleak demo -o json` wrote, with fewer sockets: of those that the process had, what is closed or
/// reset is no leftover, and of what it had closed itself only the cookies are told.
#[test]
fn a_report_of_version_1_is_read() {
    let server = addr("127.0.0.1:8080");
    let expected = [
        (5189137, server, None),
        (5189181, server, Some(addr("127.0.0.1:56780"))),
        (5189144, server, Some(addr("127.0.0.1:56794"))),
        (5189146, server, Some(addr("127.0.0.1:0"))),
        (5189150, server, Some(addr("127.0.0.1:0"))),
    ];
    assert_eq!(sockets(include_str!("v1.json")), expected);
}

#[test]
fn a_report_of_version_2_is_read() {
    let server = addr("127.0.0.1:8080");
    let expected = [
        (5421797, server, None),
        (5421800, server, Some(addr("127.0.0.1:51184"))),
        (5421801, server, Some(addr("127.0.0.1:51214"))),
        (5421799, server, Some(addr("127.0.0.1:0"))),
        (5421803, server, Some(addr("127.0.0.1:0"))),
    ];
    assert_eq!(sockets(include_str!("v2.json")), expected);
}

/// Cookies and addresses of what a report names.
fn sockets(report: &str) -> Vec<(u64, SocketAddr, Option<SocketAddr>)> {
    let recording = parse(report.as_bytes(), &LIMITS).unwrap();
    assert!(recording.unnamed.is_empty());
    let sockets = recording.sockets.into_iter();
    sockets
        .inspect(|socket| assert_eq!(socket.netns, 4_026_532_177))
        .map(|socket| (socket.cookie.unwrap(), socket.local, socket.remote))
        .collect()
}

/// A child of the dead process may have the socket in its table that the process closed.
#[test]
fn a_socket_is_named_once_whatever_is_told_of_it() {
    let group = r#"{"netns":7,"laddr":"10.0.0.7","lport":null,"raddr":"10.0.0.8","rport":9,"count":2,"cookies":[3,2]}"#;
    let socket = r#"{"netns":7,"laddr":"10.0.0.7","lport":80,"raddr":"10.0.0.8","rport":9,"cookie":2,"outcome":"held"}"#;
    let text =
        format!("{{\"type\":\"report\",\"v\":1,\"sockets\":[{socket}],\"left_while_alive\":[{group}]}}");
    let recording = parse(text.as_bytes(), &LIMITS).unwrap();
    let told: Vec<_> = recording
        .sockets
        .iter()
        .map(|socket| (socket.cookie, socket.local))
        .collect();
    let expected = [(Some(2), addr("10.0.0.7:80")), (Some(3), addr("10.0.0.7:0"))];
    assert_eq!(told, expected);
}

#[test]
fn what_has_no_cookie_is_found_by_another_command() {
    let group = |lport: &str, count: u64| {
        format!(
            r#"{{"laddr":"::1","lport":{lport},"raddr":"::2","rport":5432,"outcome":"time_wait","count":{count}}}"#
        )
    };
    let report = |groups: &[String]| {
        let text = format!(
            r#"{{"type":"report","v":1,"sockets":[],"left_while_alive":[{}]}}"#,
            groups.join(",")
        );
        parse(text.as_bytes(), &LIMITS).unwrap()
    };
    let recording = report(&[group("8080", 3), group("null", 2)]);
    assert!(recording.sockets.is_empty() && !recording.unnamed.is_empty());
    let expected = "5 leftovers that the process had closed while it lived are in the report by their number only; \
                    `sockleak free 8080` frees them; `ss -tan dst [::2]:5432` lists their ports, and \
                    `sockleak free PORT` frees each";
    assert_eq!(recording.unnamed.note().unwrap().to_string(), expected);
    let partly = group("8080", 3).replace('}', r#","netns":7,"cookies":[4]}"#);
    let recording = report(&[partly]);
    assert_eq!(recording.sockets.len(), 1);
    assert!(
        recording
            .unnamed
            .note()
            .unwrap()
            .to_string()
            .starts_with("2 leftovers")
    );
    // A number that somebody wrote there is no reason to count anew from 0.
    let many = report(&[group("80", u64::MAX), group("80", u64::MAX)]).unnamed;
    assert!(
        many.note()
            .unwrap()
            .to_string()
            .starts_with("18446744073709551615 leftovers")
    );
}

#[test]
fn an_mptcp_entry_stands_for_its_tcp_sockets() {
    let text = r#"{"type":"report","v":1,"left_while_alive":[],"sockets":[{"netns":7,"laddr":"10.0.0.7",
        "lport":80,"raddr":null,"rport":null,"cookie":1,"outcome":"time_wait","subflows":[
        {"laddr":"10.0.0.7","lport":80,"raddr":"10.0.0.8","rport":9,"cookie":2,"outcome":"time_wait"},
        {"laddr":"10.0.0.7","lport":80,"raddr":"10.0.0.9","rport":9,"cookie":3,"outcome":"reset"}]}]}"#;
    let recording = parse(text.replace('\n', "").as_bytes(), &LIMITS).unwrap();
    let expected = Recorded {
        netns: 7,
        local: addr("10.0.0.7:80"),
        remote: Some(addr("10.0.0.8:9")),
        cookie: Some(2),
    };
    assert_eq!(recording.sockets, [expected]);
    assert!(recording.unnamed.is_empty());
}

#[test]
fn what_is_no_report_is_refused() {
    let whole = written(&testing::sample(), false);
    let wrong = |text: &[u8]| format!("{:#}", parse(text, &LIMITS).unwrap_err());
    assert!(wrong(b"").contains("no report"));
    assert!(wrong(b"{\"type\":\"watch\",\"v\":1}\n").contains("no report"));
    assert!(wrong(&whole[..whole.len() / 2]).starts_with("line 1 is no whole report"));
    let newer = wrong(b"\n{\"type\":\"report\",\"v\":3}\n");
    assert!(
        newer.starts_with("line 2 is of version 3 of the format, and this sockleak reads 1 to 2"),
        "{newer}"
    );
    assert!(wrong(&written(&testing::sample(), true)).contains("--summary"));
}

/// Who may run sockleak by sudo may not be allowed to read every file.
#[test]
fn no_word_of_a_file_is_told() {
    for text in [
        r#"{"type":"report","v":1,"sockets":"root:secret","left_while_alive":[]}"#,
        r#"{"type":"report","v":1,"sockets":[{"outcome":"secret"}],"left_while_alive":[]}"#,
        r#"{"type":"report","v":1,"sockets":[],"secret"}"#,
        r#"{"type":"report","v":1,"sockets":[],"left_while_alive":[{"laddr":"secret"}]}"#,
        r#"{"type":"report","v":"secret"}"#,
        r#"{"type":"report" secret"#,
        "secret",
    ] {
        let told = format!("{:?}", parse(text.as_bytes(), &LIMITS).unwrap_err());
        assert!(!told.contains("secret"), "{told}");
    }
}

#[test]
fn no_more_is_read_than_was_agreed_upon() {
    let socket = |netns: usize, cookie: usize| {
        let netns = format!(r#"{{"netns":{netns},"laddr":"::1","lport":80,"raddr":null,"rport":null,"#);
        format!(r#"{netns}"cookie":{cookie},"outcome":"held"}}"#)
    };
    let report = |sockets: &[String]| {
        let sockets = sockets.join(",");
        format!(r#"{{"type":"report","v":1,"sockets":[{sockets}],"left_while_alive":[]}}"#)
    };
    let limits = Limits {
        line: 1024,
        bytes: 4096,
        sockets: 3,
        namespaces: 2,
    };
    let parsed = |text: &str| parse(text.as_bytes(), &limits).map_err(|error| error.to_string());
    let three = report(&[socket(1, 1), socket(1, 2), socket(2, 3)]);
    assert_eq!(
        parsed(&format!("{three}\n{three}")).map(|found| found.sockets.len()),
        Ok(3)
    );
    let padded = format!("{three}\n{}\n{three}", "x".repeat(1023));
    assert!(parsed(&padded).is_ok(), "a line that is as long as it may be");
    for (text, words) in [
        (format!("{three}\n{}", "x".repeat(1025)), "line 2 is longer"),
        (format!("{three}\n").repeat(20), "it is longer than"),
        (
            report(&[socket(1, 1), socket(1, 2), socket(1, 3), socket(1, 4)]),
            "more than 3 sockets",
        ),
        (
            report(&[socket(1, 1), socket(2, 2), socket(3, 3)]),
            "3 network namespaces",
        ),
    ] {
        let told = parsed(&text).map(|found| found.sockets).unwrap_err();
        assert!(told.contains(words), "no `{words}` in {told}");
    }
}

#[test]
fn a_recording_has_the_sockets_of_its_reports() {
    let evidence = testing::sample_evidence();
    let observation = Observation::Dead(Box::new(evidence.clone()));
    let mut encoder = Encoder::default();
    let header = Header {
        format: FORMAT,
        ..Header::default()
    };
    let mut text = Vec::new();
    for line in [recording::Line::Recording(header)]
        .into_iter()
        .chain(encoder.lines(&observation))
    {
        serde_json::to_writer(&mut text, &line).unwrap();
        text.push(b'\n');
    }
    let recorded = read_any(io::Cursor::new(text)).unwrap().sockets;
    let reported = parse(&written(&examine(evidence), false)[..], &LIMITS)
        .unwrap()
        .sockets;
    assert!(!recorded.is_empty());
    // A report leaves the ports of what the process had closed while it lived to the cookies.
    let named = |sockets: Vec<Recorded>| -> Vec<_> {
        sockets
            .iter()
            .map(|socket| (socket.netns, socket.cookie, socket.remote))
            .collect()
    };
    assert_eq!(named(recorded), named(reported));
}
