//! Whether a restart can have its port, as sentences.

use std::net::SocketAddr;

use jiff::Timestamp;
use sockleak_core::port::{Answer, BindVerdict, Obstacle, Restart, Reuse};

use super::style::{Ink, Style};
use super::words::{clock, count, duration, wrap};

/// So many addresses get a line of their own.
const NAMED: usize = 8;

/// A line for each address and port, and at the end how many more there are.
pub(super) fn restarts(restarts: &[Restart], now: Timestamp, style: &Style) -> Vec<String> {
    let mut lines: Vec<String> = restarts
        .iter()
        .take(NAMED)
        .map(|restart| {
            let (ink, text) = sentence(restart, now, style);
            style.paint(ink, &wrap(&text, style.columns(), 2))
        })
        .collect();
    if let Some(more) = restarts.len().checked_sub(NAMED).filter(|more| *more > 0) {
        lines.push(format!(
            "... and {} more addresses (-o json has them)",
            count(more as u64)
        ));
    }
    lines
}

fn sentence(restart: &Restart, now: Timestamp, style: &Style) -> (Ink, String) {
    let endpoint = &restart.endpoint;
    let mut place = SocketAddr::new(endpoint.address, endpoint.port).to_string();
    if endpoint.v6only == Some(true) && endpoint.address.is_unspecified() {
        place += " (IPv6 only)";
    }
    let verdict = |addr, port| restart.verdict(Reuse::new(addr, port));
    let answer = |addr, port| verdict(addr, port).map(|verdict| verdict.answer);
    let Some(plain) = verdict(false, false) else {
        return (Ink::Held, format!("bind() to {place} was not looked at"));
    };
    if plain.answer == Answer::Ok {
        return (Ink::Fine, format!("a restart can bind {place} now"));
    }
    if plain.is_unseen() {
        let text = format!(
            "whether a restart can bind {place} is not known: not everything that may have the port could be seen"
        );
        return (Ink::Held, text);
    }
    let plainly = from_when(plain, now, style);
    match (answer(true, false), answer(false, true)) {
        (Some(Answer::Ok), _) => {
            let text =
                format!("a restart can bind {place} now if it sets SO_REUSEADDR; without it {plainly}");
            (Ink::Fine, text)
        }
        (_, Some(Answer::Ok)) => {
            let text = format!(
                "a restart can bind {place} now only with SO_REUSEPORT, beside what is there; without it {plainly}"
            );
            (Ink::Held, text)
        }
        (Some(Answer::Unknown), _) => {
            let text = format!(
                "a restart {}; whether SO_REUSEADDR helps cannot be told: the options of what is there could not be \
                 read",
                can_bind(&place, plain, now, style)
            );
            (Ink::Held, text)
        }
        _ => {
            let text = format!(
                "a restart {}; SO_REUSEADDR does not help",
                can_bind(&place, verdict(true, false).unwrap_or(plain), now, style)
            );
            (Ink::Held, text)
        }
    }
}

fn can_bind(place: &str, verdict: &BindVerdict, now: Timestamp, style: &Style) -> String {
    if verdict.free_at.is_none() {
        return format!("cannot bind {place} while {}", obstacles(verdict));
    }
    format!("can bind {place} {}", from_when(verdict, now, style))
}

/// From when on that bind() succeeds, and what is in its way.
fn from_when(verdict: &BindVerdict, now: Timestamp, style: &Style) -> String {
    let obstacles = obstacles(verdict);
    let Some(at) = verdict.free_at else {
        return format!("not while {obstacles}");
    };
    let mut text = format!(
        "from {} (in {})",
        clock(at, &style.zone),
        duration(at.duration_since(now))
    );
    if let Some(latest) = verdict.free_at_latest.filter(|latest| *latest > at) {
        text += &format!(", at the latest {}", clock(latest, &style.zone));
    }
    format!("{text}: {obstacles}")
}

/// What is in the way, such as `150 FIN_WAIT2 and 1 listener are in the way`.
fn obstacles(verdict: &BindVerdict) -> String {
    let blocked_by = verdict.obstacles();
    let parts: Vec<String> = blocked_by
        .iter()
        .map(|(obstacle, number)| format!("{}\u{a0}{}", count(*number), name(*obstacle, *number)))
        .collect();
    let total: u64 = blocked_by.values().sum();
    let verb = if total == 1 { "is" } else { "are" };
    match parts.split_last() {
        Some((last, [])) => format!("{last} {verb} in the way"),
        Some((last, others)) => format!("{} and {last} {verb} in the way", others.join(", ")),
        None => String::new(),
    }
}

const fn name(obstacle: Obstacle, number: u64) -> &'static str {
    match (obstacle, number) {
        (Obstacle::Listener, 1) => "listener",
        (Obstacle::Listener, _) => "listeners",
        (Obstacle::Connection, 1) => "connection",
        (Obstacle::Connection, _) => "connections",
        (Obstacle::Bound, 1) => "bound socket",
        (Obstacle::Bound, _) => "bound sockets",
        (Obstacle::TimeWait, _) => "TIME_WAIT",
        (Obstacle::FinWait2, _) => "FIN_WAIT2",
        (Obstacle::FinWait1, _) => "FIN_WAIT1",
        (Obstacle::Closing, _) => "CLOSING",
        (Obstacle::LastAck, _) => "LAST_ACK",
    }
}
