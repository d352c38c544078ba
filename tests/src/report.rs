//! A report of sockleak, as JSON, and how it is held against the kernel.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Index;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::judge::{self, Entry, Timer};
use crate::limit::scaled;

pub struct Report(Value);

impl Index<&str> for Report {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.0[key]
    }
}

/// What makes a row of a truth table.
const KIND: [&str; 4] = ["state_at_death", "outcome", "why", "free_rule"];

/// What a test says when it fails because events were lost.
pub const LOST_EVENTS: &str = "lost events: ";

impl Report {
    /// Takes a `report` line, of which some things must hold whatever happened.
    #[track_caller]
    #[must_use]
    pub fn new(line: Value) -> Self {
        let report = Self::checked(line);
        assert_eq!(report["lost"]["events"], 0, "{LOST_EVENTS}{report}");
        assert_eq!(report["lost"]["inventory"], 0, "{report}");
        report
    }

    /// The same for a crash of so many sockets that events may be lost, or that is to lose some: no more sockets are
    /// unknown than events were lost.
    #[track_caller]
    #[must_use]
    pub fn with_losses(line: Value) -> Self {
        let report = Self::checked(line);
        let unknown = number(&report["summary"], "unknown");
        let lost = number(&report["lost"], "events");
        assert!(unknown <= lost, "{unknown} unknown, but {lost} lost: {report}");
        report.adds_up();
        report.changes_are_changes();
        report
    }

    #[track_caller]
    fn checked(line: Value) -> Self {
        let report = Self(line);
        assert_eq!(report["type"], "report", "{report}");
        report
    }

    #[must_use]
    pub fn sockets(&self) -> &[Value] {
        self["sockets"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The sockets that were in that state at the death.
    #[must_use]
    pub fn in_state(&self, state: &str) -> Vec<&Value> {
        let sockets = self.sockets().iter();
        sockets
            .filter(|socket| socket["state_at_death"] == state)
            .collect()
    }

    #[track_caller]
    #[must_use]
    pub fn listener(&self) -> &Value {
        let listeners = self.in_state("LISTEN");
        assert_eq!(listeners.len(), 1, "one listener: {self}");
        listeners[0]
    }

    /// What the process closed itself and what is left of it, as `COUNT outcome from PORT` or `to PORT`.
    #[must_use]
    pub fn left_while_alive(&self) -> Vec<String> {
        let groups = self["left_while_alive"].as_array().map_or(&[][..], Vec::as_slice);
        let row = |group: &Value| {
            let (count, outcome) = (&group["count"], group["outcome"].as_str().unwrap_or("null"));
            match (group["lport"].as_u64(), group["rport"].as_u64()) {
                (Some(port), _) => format!("{count} {outcome} from {port}"),
                (None, Some(port)) => format!("{count} {outcome} to {port}"),
                (None, None) => format!("{count} {outcome}"),
            }
        };
        groups.iter().map(row).collect()
    }

    /// The one destination towards which leftovers hold ports.
    #[track_caller]
    #[must_use]
    pub fn destination(&self) -> &Value {
        let rows = self["ephemeral"].as_array().expect("a list");
        assert_eq!(rows.len(), 1, "{self}");
        &rows[0]
    }

    /// The kinds of advice, in their order.
    #[track_caller]
    #[must_use]
    pub fn advice(&self) -> Vec<&str> {
        let pieces = self["advice"].as_array().expect("a list").iter();
        pieces
            .map(|piece| piece["id"].as_str().expect("a word"))
            .collect()
    }

    /// What the advice of that kind rests on.
    #[track_caller]
    #[must_use]
    pub fn evidence(&self, id: &str) -> &Value {
        let mut pieces = self["advice"].as_array().expect("a list").iter();
        let found = pieces.find(|piece| piece["id"] == id);
        &found.unwrap_or_else(|| panic!("no `{id}` in {self}"))["evidence"]
    }

    /// Holds the report against the rows of a truth table, and against the kernel.
    ///
    /// A row is `COUNT STATE_AT_DEATH outcome why free_rule`. Every socket of the report must be in a row.
    #[track_caller]
    pub fn shows(&self, rows: &[&str]) {
        self.reads(rows);
        assert_eq!(self["lost"]["slots"], 0, "{self}");
        self.agrees_with_the_kernel();
    }

    /// Holds the report against the rows of a truth table only.
    #[track_caller]
    pub fn reads(&self, rows: &[&str]) {
        let mut found: Vec<(String, usize)> = Vec::new();
        for socket in self.sockets() {
            let word = |key: &str| socket[key].as_str().unwrap_or("null").to_owned();
            let row = KIND.map(word).join(" ");
            match found.iter_mut().find(|(known, _)| *known == row) {
                Some((_, count)) => *count += 1,
                None => found.push((row, 1)),
            }
        }
        let mut found: Vec<_> = found
            .iter()
            .map(|(row, count)| format!("{count} {row}"))
            .collect();
        found.sort();
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        assert_eq!(found, rows, "{self}");
        self.adds_up();
        self.changes_are_changes();
    }

    /// The kernel tells of changes from a state to itself, after shutdown() and of MPTCP (trap 24).
    #[track_caller]
    fn changes_are_changes(&self) {
        for socket in self.sockets() {
            for change in socket["transitions"].as_array().expect("a list") {
                assert_ne!(change["from"], change["to"], "{socket}");
            }
        }
    }

    /// The counts of the summary are those of the sockets.
    #[track_caller]
    fn adds_up(&self) {
        for (outcome, count) in self["summary"].as_object().expect("an object") {
            let sockets = self.sockets().iter();
            let counted = sockets.filter(|socket| socket["outcome"] == **outcome).count();
            assert_eq!(*count, counted, "summary of {outcome}: {self}");
        }
    }

    /// Looks up every socket in the kernel's own table.
    #[track_caller]
    pub fn agrees_with_the_kernel(&self) {
        let table = judge::sockets();
        self.agrees_with(&table);
        let mini = |entry: &&Entry| entry.timer == Timer::TimeWait;
        judge::counts_timewaits(table.iter().filter(mini).count());
    }

    /// Looks up every socket in that table.
    #[track_caller]
    pub fn agrees_with(&self, table: &[Entry]) {
        let mut entries: HashMap<(SocketAddr, Option<SocketAddr>), &Entry> = HashMap::new();
        for entry in table {
            let remote = (entry.state != "LISTEN").then_some(entry.remote);
            entries.entry((entry.local, remote)).or_insert(entry);
        }
        for socket in self.sockets().iter().filter(|socket| socket["protocol"] == "tcp") {
            let local = address(&socket["laddr"], &socket["lport"]).expect("every socket has one");
            // A new socket may have the same addresses only if it has an inode.
            let entry = entries
                .get(&(local, address(&socket["raddr"], &socket["rport"])))
                .copied();
            match socket["outcome"].as_str().expect("an outcome") {
                "held" if socket["state_at_death"] == "CLOSE" => {}
                "held" => assert_eq!(
                    entry.map(|entry| entry.inode),
                    socket["inode"].as_u64(),
                    "{socket}"
                ),
                "unknown" if self["lost"]["events"] != 0 => {}
                "closed" | "reset" => assert!(entry.is_none(), "{socket} but the kernel has {entry:?}"),
                leftover => {
                    let entry = entry.unwrap_or_else(|| panic!("the kernel has no {socket}"));
                    assert_eq!(
                        entry.state.to_lowercase(),
                        leftover,
                        "{socket} but the kernel has {entry:?}"
                    );
                    assert_eq!(entry.inode, 0, "{socket} but the kernel has {entry:?}");
                    agrees_with_timer(socket, entry);
                }
            }
        }
    }
}

/// For the message of a failed test: of thousands of sockets some of each kind, so that the message can be read.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OF_A_KIND: usize = 3;
        let mut kinds: HashMap<[&Value; 4], usize> = HashMap::new();
        let some = self.sockets().iter().filter(|socket| {
            let kind = KIND.map(|key| &socket[key]);
            let count = kinds.entry(kind).or_default();
            *count += 1;
            *count <= OF_A_KIND
        });
        let some: Vec<Value> = some.cloned().collect();
        let (shown, all) = (some.len(), self.sockets().len());
        if shown == all {
            return write!(f, "{:#}", self.0);
        }
        let mut rest = self.0.clone();
        rest["sockets"] = some.into();
        write!(f, "{rest:#}\n{shown} of {all} sockets are shown")
    }
}

/// `free_at` is when the kernel's own timer fires, where that timer alone frees the socket.
#[track_caller]
fn agrees_with_timer(socket: &Value, entry: &Entry) {
    if entry.timer != Timer::TimeWait {
        return;
    }
    let fires = entry.time + entry.expires;
    let off = moment(&socket["free_at"]).duration_since(fires).abs();
    assert!(
        off <= a_second(),
        "{socket} but the timer of {entry:?} fires at {fires}"
    );
    // A FIN_WAIT2 becomes a TIME_WAIT if the peer closes at the last moment.
    let minutes = if entry.state == "FIN_WAIT2" { 1 } else { 0 };
    let slack = moment(&socket["free_at_latest"]).duration_since(moment(&socket["free_at"]));
    let slack = slack - SignedDuration::from_secs(60 * minutes);
    assert!(
        !slack.is_negative() && slack < SignedDuration::from_secs(12),
        "{socket}"
    );
}

/// How far two looks at the same timer may differ.
#[must_use]
pub fn a_second() -> SignedDuration {
    scaled(Duration::from_secs(1))
        .try_into()
        .expect("a small duration")
}

/// A time of the report.
#[track_caller]
#[must_use]
pub fn moment(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A number of the report.
#[track_caller]
#[must_use]
pub fn number(row: &Value, key: &str) -> u64 {
    row[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number `{key}` in {row}"))
}

/// `None` where the report has null.
#[must_use]
pub fn address(ip: &Value, port: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = ip.as_str()?.parse().expect("an IP address");
    let port = port.as_u64()?.try_into().expect("a port");
    Some((ip, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_some_sockets_of_each_kind() {
        let socket =
            |outcome: &str| serde_json::json!({ "state_at_death": "ESTABLISHED", "outcome": outcome });
        let mut sockets = vec![socket("time_wait"); 4000];
        sockets.push(socket("unknown"));
        let text = Report(serde_json::json!({ "sockets": sockets })).to_string();
        let count = |outcome: &str| text.matches(outcome).count();
        assert_eq!((count("time_wait"), count("unknown")), (3, 1));
        assert!(text.ends_with("\n4 of 4001 sockets are shown"), "{text}");
    }
}
