//! Whether a restart can have its port, as sentences.

use std::net::IpAddr;

use jiff::Timestamp;
use sockleak_core::port::{Answer, BindVerdict, Obstacle, Restart, Reuse};

use super::style::{Ink, Style};
use super::words::{UNLESS, by, clock, count, duration, place, wrap};

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
    let place = place_of(restart);
    let verdict = |addr, port| restart.verdict(Reuse::new(addr, port));
    let answer = |addr, port| verdict(addr, port).map(BindVerdict::answer);
    let Some(plain) = verdict(false, false) else {
        return (Ink::Held, format!("bind() to {place} was not looked at"));
    };
    if let Some(text) = refusal(restart, plain.bind, &place) {
        return (Ink::Held, text);
    }
    if plain.answer() == Answer::Ok {
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
            let user = restart
                .user
                .map_or_else(String::new, |uid| format!(" and as {}", user(uid)));
            let text = format!(
                "a restart can bind {place} now only with SO_REUSEPORT{user}, beside what is there; without it {plainly}"
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

/// Where it binds.
fn place_of(restart: &Restart) -> String {
    let endpoint = &restart.endpoint;
    let unnamed = endpoint.device.to_string();
    let device = (endpoint.device != 0).then(|| restart.device.as_deref().unwrap_or(&unnamed));
    let mut place = place(endpoint.address, device, endpoint.port);
    if endpoint.v6only == Some(true) && endpoint.address.is_unspecified() {
        place += " (IPv6 only)";
    }
    place
}

fn user(uid: u32) -> String {
    match uid {
        0 => "root (uid 0)".to_owned(),
        uid => format!("uid {uid}"),
    }
}

/// Why no socket in the way matters; `None` where it does.
fn refusal(restart: &Restart, answer: Answer, place: &str) -> Option<String> {
    let endpoint = &restart.endpoint;
    let why = match answer {
        Answer::Ok | Answer::InUse | Answer::Unknown => return None,
        Answer::NotAvailable if endpoint.device != 0 && endpoint.address.is_unspecified() => {
            "the device is not there (ENODEV)".to_owned()
        }
        Answer::NotAvailable if endpoint.device != 0 => {
            "the device is not there (ENODEV), or has not that address (EADDRNOTAVAIL)".to_owned()
        }
        Answer::NotAvailable => {
            let version = if endpoint.address.is_ipv4() { 4 } else { 6 };
            format!(
                "no device here has that address (EADDRNOTAVAIL): add it with `ip addr add`, or allow it with \
                 `sysctl net.ipv{version}.ip_nonlocal_bind=1` or IP_FREEBIND"
            )
        }
        Answer::Invalid => match endpoint.address {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
                "an IPv4-mapped address and IPV6_V6ONLY exclude each other (EINVAL)".to_owned()
            }
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                "a link-local address needs a device (EINVAL): --device NAME".to_owned()
            }
            _ => "no TCP socket can have that address (EINVAL)".to_owned(),
        },
        Answer::Permission => "a port as low as that takes CAP_NET_BIND_SERVICE (EACCES), or a lower \
             `sysctl net.ipv4.ip_unprivileged_port_start`"
            .to_owned(),
    };
    let user = match (answer, restart.user) {
        (Answer::Permission, Some(uid)) => format!(" as {}", user(uid)),
        _ => String::new(),
    };
    Some(format!("a restart{user} cannot bind {place}: {why}"))
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
        text += &format!(", {}{UNLESS}", by(latest, &style.zone));
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
