//! The table of groups: a line of columns each, and below it what that means.

use jiff::tz::TimeZone;
use sockleak_core::expiry::FreeRule;
use sockleak_core::port::Reuse;
use sockleak_core::verdict::Outcome;

use super::groups::Group;
use super::style::{Ink, Style};
use super::words::{UNLESS, block, by, clock, count, outcome, plural, state, why, with_device};

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
pub(super) fn table(groups: &[Group<'_>], style: &Style) -> Vec<String> {
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

fn cells(group: &Group<'_>) -> [String; 6] {
    let common = &group.common;
    let any = || "*".to_owned();
    [
        count(group.count),
        with_device(common.laddr, common.device),
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
fn meaning(group: &Group<'_>, zone: &TimeZone) -> String {
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

fn free(group: &Group<'_>, zone: &TimeZone) -> Option<String> {
    let at = group.free.map(|(at, _)| clock(at, zone));
    let gone = group.free.and_then(|(_, latest)| latest).map(|latest| {
        // A TIME_WAIT begins anew with each segment, and other states go on when the peer answers.
        format!("gone {}{UNLESS}", by(latest, zone))
    });
    match (group.common.rule, at, gone) {
        (Some(FreeRule::TimewaitTimer | FreeRule::FinTimeout) | None, _, Some(gone)) => Some(gone),
        (Some(FreeRule::FinTimeout), Some(at), None) => {
            Some(format!("free at {at}, or a minute after the peer closes"))
        }
        (Some(FreeRule::FinTimeout), None, _) => Some("free when the FIN timeout is over".to_owned()),
        (Some(FreeRule::MptcpTimeout), ..) => {
            Some("waits a minute for the peer to close; TCP closes its subflows then".to_owned())
        }
        (Some(FreeRule::Retransmits), Some(at), Some(gone)) => {
            Some(format!("the kernel gives up at about {at}; {gone}"))
        }
        (Some(FreeRule::Retransmits), Some(at), None) => Some(format!(
            "the kernel gives up at about {at}, unless the peer answers"
        )),
        (Some(FreeRule::Retransmits), None, _) => Some("free when the kernel gives up".to_owned()),
        (Some(FreeRule::Persist), at, gone) => {
            let end = match (at, gone) {
                (Some(at), Some(gone)) => format!("the kernel gives up from {at} on; {gone}"),
                (Some(at), None) => format!("the kernel gives up at about {at} if the peer is silent"),
                (None, _) => "when the kernel gives up cannot be told".to_owned(),
            };
            Some(format!("data waits behind the peer's closed window; {end}"))
        }
        (Some(FreeRule::NetnsGone), ..) => Some("what it left ends with the namespace".to_owned()),
        (None, Some(at), None) => Some(format!("the last one free at {at}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outcome: Outcome, rule: FreeRule, at: Option<i64>, latest: Option<i64>) -> Option<String> {
        let moment = sockleak_core::testing::at;
        let mut group = super::super::groups::any();
        group.common.outcome = outcome;
        group.common.rule = Some(rule);
        group.free = at.map(|at| (moment(at), latest.map(moment)));
        free(&group, &TimeZone::UTC)
    }

    #[test]
    fn a_latest_moment_is_told_with_what_it_does_not_hold_for() {
        let fin_wait1 = |rule, at, latest| told(Outcome::FinWait1, rule, at, latest).expect("it is told");
        let last_ack = told(Outcome::LastAck, FreeRule::Retransmits, Some(0), Some(10_001));
        assert_eq!(
            last_ack.as_deref(),
            Some("the kernel gives up at about 08:53:20; gone by 08:53:31 unless the peer keeps sending")
        );
        let time_wait = told(Outcome::TimeWait, FreeRule::TimewaitTimer, Some(0), Some(2_000));
        assert_eq!(
            time_wait.as_deref(),
            Some("gone by 08:53:22 unless the peer keeps sending")
        );
        assert_eq!(
            fin_wait1(FreeRule::Persist, Some(0), Some(10_000)),
            "data waits behind the peer's closed window; the kernel gives up from 08:53:20 on; gone by 08:53:30 \
             unless the peer keeps sending"
        );
        assert_eq!(
            fin_wait1(FreeRule::Persist, Some(0), None),
            "data waits behind the peer's closed window; the kernel gives up at about 08:53:20 if the peer is silent"
        );
        assert_eq!(
            fin_wait1(FreeRule::Retransmits, Some(0), None),
            "the kernel gives up at about 08:53:20, unless the peer answers"
        );
    }

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
