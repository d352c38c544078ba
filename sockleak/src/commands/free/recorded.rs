//! The reports in a file that `sockleak -o json` wrote.

mod unnamed;

use std::collections::HashSet;
use std::fs::File;
use std::hash::Hash;
use std::io::{BufRead, BufReader, stdin};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

pub use self::unnamed::Unnamed;
use crate::postmortem::{Outcome, Recorded};

/// The sockets of all reports of a file, each once.
#[derive(Debug, Default)]
pub struct Recording {
    pub sockets: Vec<Recorded>,
    pub unnamed: Unnamed,
}

/// The version of the format that is known here.
const VERSION: u32 = 1;
/// What a report begins with, also one that was cut off.
const BEGINNING: &str = r#"{"type":"report""#;
/// The name of stdin.
const STDIN: &str = "-";

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

/// Sockets that the process had closed while it lived.
#[derive(Deserialize)]
struct Group {
    laddr: IpAddr,
    lport: Option<u16>,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    count: u64,
    /// Without these two, of an earlier version, they cannot be found.
    netns: Option<u32>,
    cookies: Option<Vec<u64>>,
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

/// Reads them from a file or, by the name `-`, from stdin. Lines that are no JSON are passed over: a traced command writes
/// to the same stdout.
pub fn read(file: &Path) -> Result<Recording> {
    if file.as_os_str() == STDIN {
        return parse(stdin().lock()).context("stdin cannot be used as a report");
    }
    let read = || parse(BufReader::new(File::open(file)?));
    read().with_context(|| format!("{} cannot be used as a report", file.display()))
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
            format!("the report in line {number} names no sockets, for it was written with --summary: `sockleak free PORT` takes \
                     what is left on a port")
        })?;
        reports += 1;
        let mut recorded: Vec<Recorded> = sockets.into_iter().flat_map(Socket::recorded).collect();
        for group in report.left_while_alive {
            match group.recorded() {
                Some(sockets) => recorded.extend(sockets),
                None => recording.unnamed.add(group.local(), group.remote(), group.count),
            }
        }
        // The report of a child that had the same sockets names them again.
        recorded.retain(|socket| known.insert(identity(socket)));
        recording.sockets.append(&mut recorded);
    }
    ensure!(
        reports > 0,
        "there is no report in it, as `sockleak -o json` writes them"
    );
    Ok(recording)
}

/// The cookie alone, where there is one: a report may leave ports out.
fn identity(socket: &Recorded) -> impl Eq + Hash + use<> {
    let addresses = socket.cookie.is_none().then_some((socket.local, socket.remote));
    (socket.netns, socket.cookie, addresses)
}

impl Group {
    fn recorded(&self) -> Option<impl Iterator<Item = Recorded>> {
        let (netns, cookies) = self.netns.zip(self.cookies.as_ref())?;
        Some(cookies.iter().map(move |cookie| Recorded {
            netns,
            local: self.local(),
            remote: self.remote(),
            cookie: Some(*cookie),
        }))
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::new(self.laddr, self.lport.unwrap_or_default())
    }

    fn remote(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.raddr?, self.rport.unwrap_or_default()))
    }
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
        let closed = &report.left_while_alive[0];
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

    /// A child of the dead process may have the socket in its table that the process closed.
    #[test]
    fn a_socket_is_named_once_whatever_is_told_of_it() {
        let group = r#"{"netns":7,"laddr":"10.0.0.7","lport":null,"raddr":"10.0.0.8","rport":9,"count":2,"cookies":[3,2]}"#;
        let socket = r#"{"netns":7,"laddr":"10.0.0.7","lport":80,"raddr":"10.0.0.8","rport":9,"cookie":2,"outcome":"held"}"#;
        let text =
            format!("{{\"type\":\"report\",\"v\":1,\"sockets\":[{socket}],\"left_while_alive\":[{group}]}}");
        let recording = parse(text.as_bytes()).unwrap();
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
            parse(text.as_bytes()).unwrap()
        };
        let recording = report(&[group("8080", 3), group("null", 2)]);
        assert!(recording.sockets.is_empty() && !recording.unnamed.is_empty());
        let expected = "5 leftovers that the process had closed while it lived are in the report by their number only; \
                        `sockleak free 8080` frees them; `ss -tan dst [::2]:5432` lists their ports, and \
                        `sockleak free PORT` frees each";
        assert_eq!(recording.unnamed.note().as_deref(), Some(expected));
        // A number that somebody wrote there is no reason to count anew from 0.
        let many = report(&[group("80", u64::MAX), group("80", u64::MAX)]).unnamed;
        assert!(many.note().unwrap().starts_with("18446744073709551615 leftovers"));
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
        assert!(recording.unnamed.is_empty());
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
