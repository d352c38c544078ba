//! What `sockleak free` destroys, or would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use sockleak_core::leftover::{Action, Danger, Reason, Removal};
use sockleak_core::observed::State;
use sockleak_core::verdict::{Side, Sides};

use super::style::{Ink, Style};
use super::table::{HEADER, LIMIT, indent, line, widths};
use super::words::{block, count, danger, plural, reason, unacknowledged};
use crate::output::{Removals, escape};

/// So many holders of a line are named.
const NAMED: usize = 3;

/// In the order in which they are told.
const ACTIONS: [Action; 6] = [
    Action::WouldDestroy,
    Action::Destroyed,
    Action::Gone,
    Action::StillThere,
    Action::Refused,
    Action::Skipped,
];

/// What the sockets of one line have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    state: Option<State>,
    reason: Option<Reason>,
    danger: Option<Danger>,
    laddr: IpAddr,
    lport: Option<u16>,
    rport: Option<u16>,
}

/// The lines, without their ends.
pub(super) fn lines(removals: &Removals, style: &Style) -> Vec<String> {
    let addresses = removals.removals.iter().map(|one| (one.local, one.remote));
    let sides = Sides::count(addresses);
    let mut lines = Vec::new();
    for action in ACTIONS {
        let mut groups: BTreeMap<Common, Vec<&Removal>> = BTreeMap::new();
        for removal in removals.removals.iter().filter(|one| one.action == action) {
            groups.entry(common(removal, &sides)).or_default().push(removal);
        }
        if !groups.is_empty() {
            section(action, groups, style, &mut lines);
        }
    }
    if lines.is_empty() {
        lines.push(format!("nothing is left {}", removals.subject));
    }
    lines.extend(
        removals
            .notes
            .iter()
            .map(|note| block(&escape(&note.to_string()), style.columns(), 0)),
    );
    lines
}

fn common(removal: &Removal, sides: &Sides) -> Common {
    let side = sides.of(removal.local, removal.remote);
    Common {
        state: removal.state,
        reason: removal.reason,
        danger: removal.hazard.map(|hazard| hazard.danger),
        laddr: removal.local.ip(),
        lport: (side != Side::Client).then_some(removal.local.port()),
        rport: removal
            .remote
            .map(|remote| remote.port())
            .filter(|_| side != Side::Server),
    }
}

/// The sockets with which the same was done, largest group first.
fn section(action: Action, groups: BTreeMap<Common, Vec<&Removal>>, style: &Style, lines: &mut Vec<String>) {
    let mut groups: Vec<_> = groups.into_iter().collect();
    // It is stable: groups of one size stay in the order of what they have in common.
    groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    let total = groups.iter().map(|(_, members)| members.len() as u64).sum();
    lines.push(style.paint(Ink::Headline, &headline(action, total)));

    let shown = &groups[..groups.len().min(LIMIT)];
    let rows: Vec<[String; 6]> = shown.iter().map(|(_, members)| cells(members)).collect();
    let widths = widths(&rows, style.columns());
    lines.push(style.paint(Ink::Aside, &line(&HEADER.map(str::to_owned), &widths)));
    for ((common, members), row) in shown.iter().zip(&rows) {
        lines.push(style.paint(ink(action), &line(row, &widths)));
        let meaning = meaning(common, members);
        if !meaning.is_empty() {
            lines.push(style.paint(Ink::Aside, &block(&meaning, style.columns(), indent(&widths))));
        }
    }
    if let Some(rest) = groups.get(LIMIT..).filter(|rest| !rest.is_empty()) {
        let sockets = rest.iter().map(|(_, members)| members.len() as u64).sum();
        let sockets = plural(sockets, "socket", "sockets");
        lines.push(format!("{}\u{2026} and {sockets}", " ".repeat(indent(&widths))));
    }
}

fn headline(action: Action, total: u64) -> String {
    let leftovers = plural(total, "leftover", "leftovers");
    match action {
        Action::WouldDestroy => format!("would destroy {leftovers} (a dry run: --yes does it)"),
        Action::Destroyed => format!("destroyed {leftovers}"),
        Action::Gone => format!("{leftovers} gone already, nothing touched"),
        Action::StillThere => format!("{leftovers} still there"),
        Action::Refused => format!("{leftovers} not destroyed"),
        Action::Skipped => format!("{} left alone", plural(total, "socket", "sockets")),
    }
}

const fn ink(action: Action) -> Ink {
    match action {
        Action::Destroyed | Action::Gone => Ink::Fine,
        Action::WouldDestroy => Ink::Leftover,
        Action::StillThere | Action::Refused | Action::Skipped => Ink::Held,
    }
}

fn cells(members: &[&Removal]) -> [String; 6] {
    let remote = |part: fn(&SocketAddr) -> String| {
        same(members, |one| {
            one.remote.as_ref().map_or_else(|| "-".to_owned(), part)
        })
    };
    [
        count(members.len() as u64),
        same(members, |one| one.local.ip().to_string()),
        same(members, |one| port(one.local)),
        remote(|remote| remote.ip().to_string()),
        remote(|remote| port(*remote)),
        same(members, |one| one.state.map_or("-", State::name).to_owned()),
    ]
}

/// A report may name none, for what no look shows.
fn port(address: SocketAddr) -> String {
    match address.port() {
        0 => "-".to_owned(),
        port => port.to_string(),
    }
}

/// What all of them say, or a star.
fn same(members: &[&Removal], cell: impl Fn(&Removal) -> String) -> String {
    let mut cells = members.iter().map(|one| cell(one));
    let first = cells.next().unwrap_or_default();
    if cells.all(|cell| cell == first) {
        first
    } else {
        "*".to_owned()
    }
}

fn meaning(common: &Common, members: &[&Removal]) -> String {
    let mut parts = Vec::new();
    parts.extend(common.reason.map(|why| reason(why).to_owned()));
    let bytes = members.iter().filter_map(|one| one.hazard);
    let bytes = bytes.map(|hazard| u64::from(hazard.lost_bytes)).sum();
    let still_sends = matches!(common.reason, Some(Reason::PortInUse | Reason::Unacknowledged));
    match common.danger {
        Some(_) if still_sends => parts.push(unacknowledged(bytes)),
        Some(worst) => parts.push(danger(worst, bytes)),
        None => {}
    }
    parts.extend(answers(members));
    if still_sends {
        parts.push("--discard-unsent destroys it".to_owned());
    }
    match holders(members) {
        Some(named) => parts.push(named),
        None if common.reason == Some(Reason::Held) => parts.push(
            "no process is seen to have it: it may be in flight over a unix socket, in io_uring or the kernel's own"
                .to_owned(),
        ),
        None => {}
    }
    parts.join("; ")
}

fn holders(members: &[&Removal]) -> Option<String> {
    let holders = members.iter().flat_map(|one| &one.holders);
    let named = holders.map(|one| format!("{} (pid {}, fd {})", escape(&one.comm), one.pid, one.fd));
    Some(format!("held by {}", some_of(named)?))
}

/// Whose answers they may be.
fn answers(members: &[&Removal]) -> Option<String> {
    let holders = members.iter().flat_map(|one| &one.port_holders);
    let processes: BTreeSet<_> = holders.map(|holder| (holder.pid, &holder.comm)).collect();
    let named = processes
        .into_iter()
        .map(|(pid, comm)| format!("{} (pid {pid})", escape(comm)));
    let what = if members.len() == 1 {
        "an answer"
    } else {
        "answers"
    };
    Some(format!("maybe {what} of {}", some_of(named)?))
}

/// The first of them, and how many more there are.
fn some_of(mut named: impl Iterator<Item = String>) -> Option<String> {
    let first: Vec<String> = named.by_ref().take(NAMED).collect();
    if first.is_empty() {
        return None;
    }
    let rest = match named.count() {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    Some(format!("{}{rest}", first.join(", ")))
}

#[cfg(test)]
mod tests {
    use sockleak_core::leftover::{DiscardRule, Power, Powers};
    use sockleak_core::observed::Sighting;
    use sockleak_core::testing::{addr, at, sighting, socket};
    use sockleak_core::verdict::Holder;

    use super::*;
    use crate::output::Subject;

    const ABLE: Powers = Powers {
        time_wait: Power::Works,
        orphan: Power::Works,
    };

    fn told(removals: Vec<Removal>) -> String {
        let removals = Removals {
            time: at(0),
            subject: Subject::Port(8080),
            removals,
            notes: vec![crate::output::Note::HoldersUnnamed],
        };
        let style = Style {
            width: None,
            color: false,
            zone: jiff::tz::TimeZone::UTC,
            verbose: false,
        };
        lines(&removals, &style).join("\n")
    }

    #[test]
    fn thousands_are_a_few_lines_and_holders_are_named() {
        let row = |state, port: u16| Sighting {
            local: addr("10.0.0.7:8080"),
            remote: addr(&format!("10.0.0.8:{port}")),
            cookie: port.into(),
            send_queue: 101,
            ..sighting(&socket(State::Established).build(), state)
        };
        let plan = |row: &Sighting, rule: &DiscardRule| Removal::plan(1, row, rule, &ABLE);
        let always = DiscardRule::Always;
        let mut removals: Vec<Removal> = (1000..3000)
            .map(|port| plan(&row(State::TimeWait, port), &always))
            .collect();
        removals.extend((1..=3).map(|port| plan(&row(State::FinWait1, port), &always)));
        let listener = Sighting {
            remote: addr("0.0.0.0:0"),
            inode: 7,
            ..row(State::Listen, 1)
        };
        let in_use = DiscardRule::abandoned([&listener]);
        let mut answer = plan(&row(State::LastAck, 4), &in_use);
        let mut listener = plan(&listener, &always);
        let holder = Holder {
            pid: 4243,
            comm: "wor\u{1b}ker".to_owned(),
            fd: 3,
            how: None,
        };
        listener.holders.push(holder.clone());
        answer.port_holders.push(holder);
        removals.extend([listener, answer]);
        let expected = "\
would destroy 2,003 leftovers (a dry run: --yes does it)
  COUNT  LADDR     LPORT  RADDR     RPORT  STATE
  2,000  10.0.0.7   8080  10.0.0.8      *  TIME_WAIT
         both sides have closed; for a minute a delayed segment could disturb a
         new connection between the same addresses and ports (RFC 1337)
      3  10.0.0.7   8080  10.0.0.8      *  FIN_WAIT1
         300 bytes that were sent and not acknowledged are lost
2 sockets left alone
  COUNT  LADDR     LPORT  RADDR     RPORT  STATE
      1  10.0.0.7   8080  10.0.0.8      4  LAST_ACK
         still sending, and its port is in use; 100 bytes are not acknowledged;
         maybe an answer of wor\\x1bker (pid 4243); --discard-unsent destroys it
      1  10.0.0.7   8080  -             -  LISTEN
         a listener; held by wor\\x1bker (pid 4243, fd 3)
without /proc nobody can be named who holds a socket";
        assert_eq!(told(removals), expected);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert!(told(Vec::new()).starts_with("nothing is left on port 8080\n"));
    }
}
