//! The table of groups: a line of columns each, and below it what that means.

use jiff::tz::TimeZone;
use sockleak_core::expiry::FreeRule;
use sockleak_core::port::Reuse;
use sockleak_core::verdict::Outcome;

use super::groups::Group;
use super::style::{Ink, Style};
use super::words::{block, clock, count, outcome, plural, state, why};

/// So many groups are printed.
pub(super) const LIMIT: usize = 12;

pub(super) const HEADER: [&str; 6] = ["COUNT", "LADDR", "LPORT", "RADDR", "RPORT", "STATE"];
/// Numbers are aligned to the right.
const RIGHT: [bool; 6] = [true, false, true, false, true, false];
const LADDR: usize = 1;
const RADDR: usize = 3;
/// Between two columns, and before the first.
const GAP: usize = 2;

/// The lines of a table, largest group first.
pub(super) fn table(groups: &[Group], style: &Style) -> Vec<String> {
    let shown = &groups[..groups.len().min(LIMIT)];
    let rows: Vec<[String; 6]> = shown.iter().map(cells).collect();
    let widths = widths(&rows, style.columns());
    let indent = indent(&widths);

    let mut lines = vec![style.paint(Ink::Aside, &line(&HEADER.map(str::to_owned), &widths))];
    for (group, row) in shown.iter().zip(&rows) {
        lines.push(style.paint(ink(group.common.outcome), &line(row, &widths)));
        let meaning = meaning(group, &style.zone);
        if !meaning.is_empty() {
            lines.push(style.paint(Ink::Aside, &block(&meaning, style.columns(), indent)));
        }
    }
    if let Some(rest) = groups.get(LIMIT..).filter(|rest| !rest.is_empty()) {
        let sockets = rest.iter().map(|group| group.count).sum();
        lines.push(format!(
            "{}\u{2026} and {} with {}",
            " ".repeat(indent),
            plural(rest.len() as u64, "more group", "more groups"),
            plural(sockets, "socket", "sockets"),
        ));
    }
    lines
}

/// Where the text below a line begins.
pub(super) const fn indent(widths: &[usize; 6]) -> usize {
    GAP + widths[0] + GAP
}

fn ink(outcome: Outcome) -> Ink {
    match outcome {
        Outcome::Held | Outcome::Unknown => Ink::Held,
        Outcome::Reset | Outcome::Closed => Ink::Fine,
        _ => Ink::Leftover,
    }
}

fn cells(group: &Group) -> [String; 6] {
    let common = &group.common;
    let any = || "*".to_owned();
    [
        count(group.count),
        common.laddr.to_string(),
        group.lport.map_or_else(any, |port| port.to_string()),
        group.remote.to_string(),
        match group.remote {
            super::groups::Remote::None => "-".to_owned(),
            _ => group.rport.map_or_else(any, |port| port.to_string()),
        },
        state(common.outcome, common.state).to_owned(),
    ]
}

/// Wide enough for every cell, as far as the line allows. What the addresses of IPv6 need beyond it, they take
/// from their own lines.
pub(super) fn widths(rows: &[[String; 6]], columns: usize) -> [usize; 6] {
    let mut widths = HEADER.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let others: usize = widths.iter().sum::<usize>() - widths[LADDR] - widths[RADDR] + GAP * HEADER.len();
    let left = columns.saturating_sub(others);
    if widths[LADDR] + widths[RADDR] > left {
        let half = left / 2;
        widths[LADDR] = widths[LADDR].min(half.max(left.saturating_sub(widths[RADDR])));
        widths[RADDR] = widths[RADDR].min(left.saturating_sub(widths[LADDR])).max(5);
    }
    widths
}

/// One line of cells. After a cell that is too long for its column, the others continue on the next line.
pub(super) fn line(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let mut line = String::new();
    let mut start = 0;
    let mut column = 0;
    for ((cell, &width), right) in cells.iter().zip(widths).zip(RIGHT) {
        start += GAP;
        let length = cell.chars().count();
        if column + GAP > start && column > 0 {
            line.push('\n');
            column = 0;
        }
        let at = start + if right { width.saturating_sub(length) } else { 0 };
        line.extend(std::iter::repeat_n(' ', at - column));
        line.push_str(cell);
        column = at + length;
        start += width;
    }
    line
}

/// What a group means: why it is so, and when it is free.
fn meaning(group: &Group, zone: &TimeZone) -> String {
    let common = &group.common;
    let mut parts = Vec::new();
    if let Some(reason) = common.why {
        parts.push(why(common.outcome, reason).to_owned());
    }
    if common.outcome == Outcome::Held && common.why.is_none() {
        parts.push(outcome(Outcome::Held).to_owned());
    }
    if let Some(subflows) = common.subflows {
        parts.push(match subflows {
            0 | 1 => "MPTCP".to_owned(),
            many => format!("MPTCP with {}", plural(many as u64, "subflow", "subflows")),
        });
    }
    if let Some(reuse) = common.reuse {
        parts.push(options(reuse).to_owned());
    }
    if group.addresses > 1 {
        parts.push(plural(group.addresses, "remote address", "remote addresses"));
    }
    if group.accept_queue > 0 {
        let waiting = plural(group.accept_queue, "connection", "connections");
        parts.push(match common.outcome {
            Outcome::Held => format!("{waiting} still wait to be accepted"),
            _ => format!("{waiting} that it had not accepted were reset"),
        });
    }
    parts.extend(free(group, zone));
    parts.join("; ")
}

const fn options(reuse: Reuse) -> &'static str {
    match (reuse.addr, reuse.port) {
        (false, false) => "without SO_REUSEADDR",
        (true, false) => "with SO_REUSEADDR",
        (false, true) => "with SO_REUSEPORT, without SO_REUSEADDR",
        (true, true) => "with SO_REUSEADDR and SO_REUSEPORT",
    }
}

fn free(group: &Group, zone: &TimeZone) -> Option<String> {
    let moment = group.free.map(|(at, latest)| {
        let (at, latest) = (clock(at, zone), clock(latest, zone));
        if at == latest {
            format!("at {at}")
        } else {
            format!("between {at} and {latest}")
        }
    });
    match (group.common.rule, moment) {
        (Some(FreeRule::TimewaitTimer), Some(moment)) => Some(format!("free {moment}")),
        (Some(FreeRule::FinTimeout), Some(moment)) => {
            Some(format!("free {moment}, or a minute after the peer closes"))
        }
        (Some(FreeRule::FinTimeout), None) => Some("free when the FIN timeout is over".to_owned()),
        (Some(FreeRule::MptcpTimeout), _) => {
            Some("waits a minute for the peer to close; TCP closes its subflows then".to_owned())
        }
        (Some(FreeRule::Retransmits), Some(moment)) => {
            Some(format!("the kernel gives up {moment}, unless the peer answers"))
        }
        (Some(FreeRule::Retransmits), None) => Some("free when the kernel gives up".to_owned()),
        (Some(FreeRule::Persist), _) => {
            Some("data waits behind the peer's closed window, with no end in sight".to_owned())
        }
        (Some(FreeRule::NetnsGone), _) => Some("what it left ends with the namespace".to_owned()),
        (None, Some(moment)) => Some(format!("the last one free {moment}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_addresses_do_not_break_the_columns() {
        let rows = [
            ["1", "10.0.0.7", "80", "10.0.0.0/24", "*", "TIME_WAIT"].map(str::to_owned),
            [
                "200",
                "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
                "80",
                "2001:db8:aaaa:bbbb:cccc:dddd:eeee:0001",
                "40310",
                "FIN_WAIT2",
            ]
            .map(str::to_owned),
        ];
        let widths = widths(&rows, 80);
        assert!(line(&HEADER.map(str::to_owned), &widths).len() <= 80);
        let short = line(&rows[0], &widths);
        assert!(!short.contains('\n') && short.len() <= 80, "{short}");
        let long = line(&rows[1], &widths);
        assert!(long.lines().all(|line| line.len() <= 80), "{long}");
        let column = short.find("TIME_WAIT").expect("it is there");
        assert_eq!(
            long.lines().last().and_then(|line| line.find("FIN_WAIT2")),
            Some(column),
            "{long}"
        );
    }
}
