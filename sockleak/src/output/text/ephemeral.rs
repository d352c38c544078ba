//! The ports that are left for outgoing connections, as text.

use std::net::SocketAddr;

use sockleak_core::port::Ephemeral;

use super::style::{Ink, Style};
use super::words::{by, clock, count, plural, wrap};

/// So many destinations are told.
const NAMED: usize = 3;

/// The lines about ports, two for each destination at most.
pub(super) fn ephemeral(rows: &[Ephemeral], style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows.iter().take(NAMED) {
        lines.push(wrap(&ports(row, style), style.columns(), 2));
        if let Some(text) = failure(row, style) {
            lines.push(style.paint(Ink::Held, &wrap(&text, style.columns(), 2)));
        }
    }
    if let Some(rest) = rows.get(NAMED..).filter(|rest| !rest.is_empty()) {
        let ports = rest.iter().map(|row| row.in_use).sum();
        let destinations = plural(rest.len() as u64, "more destination", "more destinations");
        let ports = plural(ports, "port", "ports");
        let text = format!("\u{2026} and {destinations} with {ports} held by leftovers");
        lines.push(wrap(&text, style.columns(), 2));
    }
    lines
}

fn ports(row: &Ephemeral, style: &Style) -> String {
    let remote = SocketAddr::new(row.raddr, row.rport);
    let usable = row.range_total - row.reserved;
    let mut text = format!(
        "ports from {} to {remote}: {} held by leftovers, {} of {} left",
        row.laddr,
        count(row.in_use),
        count(row.available),
        count(usable),
    );
    if row.held > 0 {
        text += &format!(", {} held by another process", count(row.held));
    }
    if let Some(at) = row.reusable_at {
        let from = match at.cmp(&row.time) {
            std::cmp::Ordering::Greater => format!("from {} on ", clock(at, &style.zone)),
            _ => String::new(),
        };
        text += &format!(
            "; {from}{} in TIME_WAIT can be taken over (tcp_tw_reuse)",
            count(row.reusable)
        );
    }
    text + &back(row, style)
}

/// How many are back by when: `3,912 of 4,000 by 14:02:40`.
fn back(row: &Ephemeral, style: &Style) -> String {
    let mut parts = Vec::new();
    let mut sum = 0;
    for group in &row.returns {
        let Some(latest) = group.latest else {
            let ports = count(group.count);
            parts.push(format!("of {ports} no end can be told"));
            continue;
        };
        sum += group.count;
        let how_many = if sum == row.in_use {
            "all".to_owned()
        } else {
            format!("{} of {}", count(sum), count(row.in_use))
        };
        parts.push(format!("{how_many} back {}", by(latest, &style.zone)));
    }
    if parts.is_empty() {
        return String::new();
    }
    format!("; {}", parts.join(", "))
}

fn failure(row: &Ephemeral, style: &Style) -> Option<String> {
    let what = match row.connect_fails {
        Some(false) => return None,
        Some(true) => "connect() fails with EADDRNOTAVAIL",
        None => "connect() fails with EADDRNOTAVAIL if the peer uses no TCP timestamps",
    };
    let remote = SocketAddr::new(row.raddr, row.rport);
    let until = row
        .connect_fails_until
        .map_or_else(String::new, |at| format!(" until {}", clock(at, &style.zone)));
    Some(format!("no port is left to {remote}: {what}{until}"))
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use sockleak_core::expiry::FreeRule;
    use sockleak_core::observed::TwReuse;
    use sockleak_core::port::Return;
    use sockleak_core::testing::at;

    use super::*;

    fn style(width: usize) -> Style {
        Style {
            width: Some(width),
            color: false,
            zone: TimeZone::UTC,
            verbose: false,
        }
    }

    fn row() -> Ephemeral {
        let back = |rule, count, seconds: Option<i64>| Return {
            rule,
            count,
            at: seconds.map(|seconds| at(seconds * 1000 - 2048)),
            latest: seconds.map(|seconds| at(seconds * 1000)),
        };
        Ephemeral {
            time: at(0),
            netns: 1,
            laddr: [10, 0, 0, 7].into(),
            raddr: [10, 0, 0, 5].into(),
            rport: 5432,
            in_use: 4_000,
            held: 0,
            range_total: 28_232,
            reserved: 1,
            available: 24_000,
            reusable: 0,
            reusable_at: None,
            tw_reuse: TwReuse::Loopback,
            connect_fails: Some(false),
            connect_fails_until: None,
            returns: vec![
                back(FreeRule::TimewaitTimer, 3_912, Some(62)),
                back(FreeRule::Retransmits, 80, Some(108)),
                back(FreeRule::Persist, 8, None),
            ],
            free_at: None,
            free_at_latest: None,
        }
    }

    #[test]
    fn how_many_are_left_and_when_the_others_are_back() {
        let lines = ephemeral(&[row()], &style(80));
        let expected = "\
ports from 10.0.0.7 to 10.0.0.5:5432: 4,000 held by leftovers, 24,000 of 28,231
  left; 3,912 of 4,000 back by 08:54:22, 3,992 of 4,000 back by 08:55:08, of 8
  no end can be told";
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn a_failure_is_a_line_of_its_own() {
        let mut empty = row();
        empty.available = 0;
        empty.connect_fails = Some(true);
        empty.connect_fails_until = Some(at(1000));
        empty.reusable = 10;
        empty.reusable_at = Some(at(1000));
        let lines = ephemeral(&[empty.clone()], &style(500));
        assert!(
            lines[0].contains("0 of 28,231 left; from 08:53:21 on 10 in TIME_WAIT can be taken over"),
            "{lines:?}"
        );
        let expected = "no port is left to 10.0.0.5:5432: connect() fails with EADDRNOTAVAIL until 08:53:21";
        assert_eq!(lines[1], expected);
        empty.connect_fails = None;
        let lines = ephemeral(&[empty], &style(500));
        assert!(
            lines[1].contains("if the peer uses no TCP timestamps"),
            "{lines:?}"
        );
    }

    #[test]
    fn few_destinations_are_named_and_narrow_lines_stay_narrow() {
        let rows = vec![row(); 5];
        let lines = ephemeral(&rows, &style(40));
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[3],
            "\u{2026} and 2 more destinations with 8,000\n  ports held by leftovers"
        );
        let longest = lines
            .iter()
            .flat_map(|line| line.lines())
            .map(|line| line.chars().count());
        assert!(longest.max() <= Some(40), "{lines:?}");
    }
}
