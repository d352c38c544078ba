//! The sockets in a file: in reports that `sockleak -o json` wrote, or in a recording of `trace --record`.

mod unnamed;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _, stdin};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::error::Category;
use sockleak_core::leftover::Recorded;
use sockleak_core::observed::Observation;
use sockleak_core::verdict::{Outcome, examine};
use sockleak_kernel::{preflight, user_files};

pub use self::unnamed::Unnamed;
use crate::session::Replay;

/// The sockets of all reports of a file, each once.
#[derive(Debug, Default)]
pub struct RecordedSockets {
    pub sockets: Vec<Recorded>,
    pub unnamed: Unnamed,
    /// It is a recording that was cut: there may have been more.
    pub is_cut: bool,
}

/// The versions of the format that are known here. What is read of a report is the same in all.
const VERSIONS: RangeInclusive<u32> = 1..=2;
/// What a report begins with, also one that was cut off.
const BEGINNING: &str = r#"{"type":"report""#;
/// The name of stdin.
const STDIN: &str = "-";

/// How much is read. Whoever wrote the file may mean harm.
struct Limits {
    line: u64,
    bytes: u64,
    sockets: usize,
    /// Each is searched for, and has a descriptor while it is worked on.
    namespaces: usize,
}

/// A socket takes about 800 bytes of a report, so that there is room for as many as are recorded without `--max-sockets`.
const LIMITS: Limits = Limits {
    line: 384 << 20,
    bytes: 8 << 30,
    sockets: 1 << 20,
    namespaces: 256,
};

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

/// Its own members are not flattened into it: serde would keep everything else that is in the object meanwhile.
#[derive(Deserialize)]
struct Socket {
    netns: u32,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    cookie: Option<u64>,
    outcome: Outcome,
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
pub fn read(file: &Path) -> Result<RecordedSockets> {
    if file.as_os_str() == STDIN {
        return read_any(stdin().lock()).context("stdin cannot be used as a report");
    }
    let hint = |error: io::Error| match error.kind() {
        ErrorKind::InvalidInput => anyhow!("{error}; `sockleak free --report -` reads stdin"),
        _ => error.into(),
    };
    user_files::open(file)
        .map_err(hint)
        .and_then(|file| read_any(BufReader::new(file)))
        .with_context(|| format!("{} cannot be used as a report", file.display()))
}

fn read_any(mut input: impl BufRead + 'static) -> Result<RecordedSockets> {
    if Replay::begins(input.fill_buf()?) {
        return judge(Replay::new(input)?, &LIMITS);
    }
    parse(input, &LIMITS)
}

/// The sockets of the reports that a recording gives today.
fn judge(mut replay: Replay, limits: &Limits) -> Result<RecordedSockets> {
    let recorded_at = replay.header().boot_id.as_ref();
    ensure!(
        recorded_at.is_none()
            || preflight::boot_id()
                .as_ref()
                .is_none_or(|now| Some(now) == recorded_at),
        "it was recorded before this machine was booted: nothing of it is left"
    );
    let mut recorded = RecordedSockets::default();
    let mut known = HashSet::new();
    while let Some(observation) = replay.read()? {
        if let Observation::Dead(evidence) | Observation::Living(evidence) = observation {
            recorded.add(Recorded::of(&examine(*evidence)), &mut known, limits)?;
        }
    }
    recorded.refuse_many_namespaces(limits)?;
    recorded.is_cut = !replay.is_complete();
    Ok(recorded)
}

fn parse(input: impl BufRead, limits: &Limits) -> Result<RecordedSockets> {
    let mut recording = RecordedSockets::default();
    let mut known = HashSet::new();
    let mut reports = 0;
    let mut input = input.take(limits.bytes);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = (&mut input).take(limits.line + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        ensure!(
            line.len() as u64 <= limits.line,
            "line {number} is longer than the {} MiB that are read of one: `sockleak free PORT` takes what is left on a port",
            limits.line >> 20
        );
        ensure!(input.limit() > 0, "it is longer than {} GiB", limits.bytes >> 30);
        let Some(report) = report(&line, number)? else {
            continue;
        };
        let sockets = report.sockets.with_context(|| {
            format!(
                "the report in line {number} names no sockets, for it was written with --summary: \
                 `sockleak free PORT` takes what is left on a port"
            )
        })?;
        reports += 1;
        let recorded = sockets.into_iter().flat_map(Socket::recorded);
        recording.add(recorded, &mut known, limits)?;
        for group in report.left_while_alive {
            recording.add(group.recorded(), &mut known, limits)?;
            let (local, remote) = (group.local(), group.remote());
            recording.unnamed.add(local, remote, group.unnamed());
        }
    }
    ensure!(
        reports > 0,
        "there is no report in it, as `sockleak -o json` writes them"
    );
    recording.refuse_many_namespaces(limits)?;
    Ok(recording)
}

/// The report in a line; `None` if the line is none. What is wrong is said without a word of it: who runs sockleak by sudo
/// may not be allowed to read it.
fn report(line: &[u8], number: u64) -> Result<Option<Report>> {
    match serde_json::from_slice::<Line>(line) {
        Ok(header) if header.kind != "report" => return Ok(None),
        Ok(header) => ensure!(
            VERSIONS.contains(&header.v),
            "line {number} is of version {} of the format, and this sockleak reads {} to {}: free it with the sockleak that \
             wrote it",
            header.v,
            VERSIONS.start(),
            VERSIONS.end()
        ),
        Err(_) if !line.starts_with(BEGINNING.as_bytes()) => return Ok(None),
        Err(_) => {}
    }
    let report = serde_json::from_slice(line).map_err(|error| {
        let column = error.column();
        let what = match error.classify() {
            Category::Eof => "it breaks off".to_owned(),
            Category::Data => format!("what stands before column {column} is not what a report has there"),
            Category::Syntax | Category::Io => format!("it is no JSON at column {column}"),
        };
        anyhow!("line {number} is no whole report: {what}")
    })?;
    Ok(Some(report))
}

impl RecordedSockets {
    fn refuse_many_namespaces(&self, limits: &Limits) -> Result<()> {
        let namespaces: BTreeSet<u32> = self.sockets.iter().map(|socket| socket.netns).collect();
        ensure!(
            namespaces.len() <= limits.namespaces,
            "there are sockets of {} network namespaces in it, and at most {} are searched for: split the file between \
             its lines",
            namespaces.len(),
            limits.namespaces
        );
        Ok(())
    }

    /// Adds what is not known yet: the report of a child that had the same sockets names them again.
    fn add(
        &mut self,
        sockets: impl Iterator<Item = Recorded>,
        known: &mut HashSet<Identity>,
        limits: &Limits,
    ) -> Result<()> {
        for socket in sockets {
            if known.insert(Identity::of(&socket)) {
                self.sockets.push(socket);
            }
            ensure!(
                self.sockets.len() <= limits.sockets,
                "there are more than {} sockets in it: split the file between its lines",
                limits.sockets
            );
        }
        Ok(())
    }
}

/// What no other socket of a report has. Where there is a cookie, the report may leave ports out.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Cookie(u32, u64),
    Addresses(u32, SocketAddr, Option<SocketAddr>),
}

impl Identity {
    fn of(socket: &Recorded) -> Self {
        match socket.cookie {
            Some(cookie) => Self::Cookie(socket.netns, cookie),
            None => Self::Addresses(socket.netns, socket.local, socket.remote),
        }
    }
}

impl Group {
    fn recorded(&self) -> impl Iterator<Item = Recorded> {
        let named = self.netns.zip(self.cookies.as_ref());
        named.into_iter().flat_map(move |(netns, cookies)| {
            cookies.iter().map(move |cookie| Recorded {
                netns,
                local: self.local(),
                remote: self.remote(),
                cookie: Some(*cookie),
            })
        })
    }

    /// How many of them are only counted.
    fn unnamed(&self) -> u64 {
        let cookies = self.netns.and(self.cookies.as_ref());
        self.count
            .saturating_sub(cookies.map_or(0, |cookies| cookies.len() as u64))
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
        let own = || Entry {
            laddr: self.laddr,
            lport: self.lport,
            raddr: self.raddr,
            rport: self.rport,
            cookie: self.cookie,
            outcome: self.outcome,
        };
        let entries = self.subflows.unwrap_or_else(|| vec![own()]);
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
mod tests;
