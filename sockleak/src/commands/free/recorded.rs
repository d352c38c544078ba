//! The reports in a file that `sockleak -o json` wrote.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::postmortem::{Outcome, Recorded};

/// The sockets of all reports of a file, each once.
#[derive(Debug, Default)]
pub struct Recording {
    pub sockets: Vec<Recorded>,
    /// Leftovers that the reports only count: those that a process had closed while it lived.
    unnamed: u64,
}

impl Recording {
    /// What is to be known of it.
    pub fn note(&self) -> Option<String> {
        (self.unnamed > 0).then(|| {
            format!(
                "{} leftovers that the process had closed while it lived are in the report by their number only; \
                 `sockleak free PORT` finds them",
                self.unnamed
            )
        })
    }
}

/// The version of the format that is known here.
const VERSION: u32 = 1;
/// What a report begins with, also one that was cut off.
const BEGINNING: &str = r#"{"type":"report""#;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    v: u32,
}

#[derive(Deserialize)]
struct Report {
    sockets: Option<Vec<Socket>>,
    left_while_alive: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    count: u64,
}

#[derive(Deserialize)]
struct Socket {
    netns: u32,
    #[serde(flatten)]
    entry: Entry,
    /// The TCP sockets of an MPTCP socket, which sock_diag lists in its place.
    subflows: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    cookie: Option<u64>,
    outcome: Outcome,
}

/// Reads them. Lines that are no JSON are passed over: a traced command writes to the same stdout.
pub fn read(file: &Path) -> Result<Recording> {
    parse(BufReader::new(File::open(file)?))
}

fn parse(lines: impl BufRead) -> Result<Recording> {
    let mut recording = Recording::default();
    let mut known = HashSet::new();
    let mut reports = 0;
    for (number, line) in (1..).zip(lines.split(b'\n')) {
        let line = line?;
        let is_report = match serde_json::from_slice::<Line>(&line) {
            Ok(header) if header.kind != "report" => false,
            Ok(header) => {
                let found = header.v;
                ensure!(
                    found == VERSION,
                    "line {number} has version {found} of the format, and {VERSION} is known here"
                );
                true
            }
            Err(_) => line.starts_with(BEGINNING.as_bytes()),
        };
        if !is_report {
            continue;
        }
        let report: Report =
            serde_json::from_slice(&line).with_context(|| format!("line {number} is no whole report"))?;
        let sockets = report.sockets.with_context(|| {
            format!("the report in line {number} names no sockets: it was written with --summary")
        })?;
        reports += 1;
        recording.unnamed += report
            .left_while_alive
            .iter()
            .map(|group| group.count)
            .sum::<u64>();
        let recorded = sockets.into_iter().flat_map(Socket::recorded);
        // The report of a child that had the same sockets names them again.
        recording.sockets.extend(
            recorded
                .filter(|socket| known.insert((socket.netns, socket.cookie, socket.local, socket.remote))),
        );
    }
    ensure!(
        reports > 0,
        "there is no report in it, as `sockleak -o json` writes them"
    );
    Ok(recording)
}

impl Socket {
    fn recorded(self) -> impl Iterator<Item = Recorded> {
        let entries = self.subflows.unwrap_or_else(|| vec![self.entry]);
        let left = entries
            .into_iter()
            .filter(|entry| !matches!(entry.outcome, Outcome::Closed | Outcome::Reset));
        left.map(move |entry| Recorded {
            netns: self.netns,
            local: SocketAddr::new(entry.laddr, entry.lport),
            remote: entry
                .raddr
                .zip(entry.rport)
                .map(|(ip, port)| SocketAddr::new(ip, port)),
            cookie: entry.cookie,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Json, LiveLine, Output as _};
    use crate::postmortem::Report as Written;
    use crate::postmortem::testing::{self, addr};

    fn written(report: &Written, summary: bool) -> Vec<u8> {
        let mut text = Vec::new();
        let mut json = Json::new(&mut text, LiveLine::new(Vec::new(), None), summary);
        json.report(report).unwrap();
        drop(json);
        text
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let report = testing::sample();
        let mut text = b"not of sockleak\n{\"type\":\"lost\",\"v\":1,\"events\":1}\n\xff\n".to_vec();
        text.extend(written(&report, false));
        text.extend(written(&report, false));
        let recording = parse(&text[..]).unwrap();
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
            .collect();
        assert!(expected.len() > 1);
        assert_eq!(recording.sockets, expected);
        assert_eq!(recording.unnamed, 6);
        assert!(recording.note().unwrap().starts_with("6 leftovers"));
    }

    #[test]
    fn an_mptcp_entry_stands_for_its_tcp_sockets() {
        let text = r#"{"type":"report","v":1,"left_while_alive":[],"sockets":[{"netns":7,"laddr":"10.0.0.7",
            "lport":80,"raddr":null,"rport":null,"cookie":1,"outcome":"time_wait","subflows":[
            {"laddr":"10.0.0.7","lport":80,"raddr":"10.0.0.8","rport":9,"cookie":2,"outcome":"time_wait"},
            {"laddr":"10.0.0.7","lport":80,"raddr":"10.0.0.9","rport":9,"cookie":3,"outcome":"reset"}]}]}"#;
        let recording = parse(text.replace('\n', "").as_bytes()).unwrap();
        let expected = Recorded {
            netns: 7,
            local: addr("10.0.0.7:80"),
            remote: Some(addr("10.0.0.8:9")),
            cookie: Some(2),
        };
        assert_eq!(recording.sockets, [expected]);
        assert!(recording.note().is_none());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let whole = written(&testing::sample(), false);
        let wrong = |text: &[u8]| format!("{:#}", parse(text).unwrap_err());
        assert!(wrong(b"").contains("no report"));
        assert!(wrong(b"{\"type\":\"watch\",\"v\":1}\n").contains("no report"));
        assert!(wrong(&whole[..whole.len() / 2]).starts_with("line 1 is no whole report"));
        assert!(wrong(b"\n{\"type\":\"report\",\"v\":2}\n").contains("line 2 has version 2"));
        assert!(wrong(&written(&testing::sample(), true)).contains("--summary"));
    }
}
