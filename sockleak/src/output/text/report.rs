//! A report as text: who died and how, the counts, the groups, and at the end what matters.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use sockleak_core::leftover::leftovers;
use sockleak_core::verdict::{How, LeftWhileAlive, Outcome, Report, SocketReport, Why};

use super::advice::advice;
use super::ephemeral::ephemeral;
use super::groups::{of_left_while_alive, of_sockets};
use super::restart::restarts;
use super::style::{Ink, Style};
use super::table::table;
use super::words::{
    UNLESS, block, by, clock, count, death, duration, first_few, how, outcome, plural, sender, state, wrap,
};
use crate::output::blind;
use crate::output::escape;

/// The lines of a report; some hold several.
pub(super) fn report(report: &Report, style: &Style) -> Vec<String> {
    let mut lines = headline(report, style);
    lines.push(String::new());
    lines.push(wrap(&counts(report), style.columns(), 2));
    if !report.sockets.is_empty() {
        lines.append(&mut table(&of_sockets(report), style));
    }
    if !report.left_while_alive.is_empty() {
        lines.push(String::new());
        lines.push(wrap(
            &left_while_alive(&report.left_while_alive),
            style.columns(),
            2,
        ));
        lines.append(&mut table(&of_left_while_alive(&report.left_while_alive), style));
    }
    if !report.ephemeral.is_empty() {
        lines.push(String::new());
        lines.append(&mut ephemeral(&report.ephemeral, style));
    }
    if !report.advice.is_empty() {
        lines.push(String::new());
        lines.append(&mut advice(&report.advice, style));
    }
    let remarks = remarks(report);
    if !remarks.is_empty() {
        lines.push(String::new());
        lines.extend(
            remarks
                .iter()
                .map(|remark| wrap(&format!("note: {}", escape(remark)), style.columns(), 6)),
        );
    }
    lines.push(String::new());
    lines.append(&mut what_matters(report, style));
    lines.append(&mut restarts(&report.restart, report.time, style));
    lines
}

fn headline(report: &Report, style: &Style) -> Vec<String> {
    let process = &report.process;
    let how = report
        .death
        .as_ref()
        .map_or_else(|| "still running".to_owned(), death);
    let mut who = format!("{} (pid {}", escape(&process.comm), process.pid);
    if let Some(ns_pid) = process.ns_pid.filter(|&ns_pid| ns_pid != process.pid) {
        who += &format!(", {ns_pid} in its namespace");
    }
    let first = wrap(&format!("{who}): {how}"), style.columns(), 2);
    let mut lines = vec![style.paint(Ink::Headline, &first)];

    let mut details = Vec::new();
    if let Some(exe) = &process.exe {
        details.push(escape(exe).into_owned());
    }
    if let Some(death) = &report.death {
        let mut died = format!("died {}", clock(death.time, &style.zone));
        if let Some(started) = process.started {
            died += &format!(" after {}", duration(death.time.duration_since(started)));
        }
        details.push(died);
        details.extend(
            death
                .sent_by
                .as_ref()
                .map(|by| format!("signal from {}", sender(by))),
        );
        if let Some(dump) = death.core_dump.and_then(|dump| dump.try_into().ok()) {
            details.push(format!("core dump took {}", duration(dump)));
        }
    }
    if !details.is_empty() {
        lines.push(block(&details.join(", "), style.columns(), 2));
    }
    lines
}

fn counts(report: &Report) -> String {
    let (summary, not_recorded) = (&report.summary, report.lost.inventory);
    let total = summary.total().saturating_add(not_recorded);
    let sockets = plural(total, "socket", "sockets");
    let mut parts: Vec<String> = [
        (Outcome::Held, summary.held),
        (Outcome::TimeWait, summary.time_wait),
        (Outcome::FinWait2, summary.fin_wait2),
        (Outcome::FinWait1, summary.fin_wait1),
        (Outcome::Closing, summary.closing),
        (Outcome::LastAck, summary.last_ack),
        (Outcome::Reset, summary.reset),
        (Outcome::Closed, summary.closed),
        (Outcome::Unknown, summary.unknown),
    ]
    .into_iter()
    .filter(|&(_, number)| number > 0)
    .map(|(kind, number)| format!("{}\u{a0}{}", count(number), outcome(kind)))
    .collect();
    if not_recorded > 0 {
        parts.push(format!("{}\u{a0}not\u{a0}recorded", count(not_recorded)));
    }
    match (total, &report.death) {
        (0, Some(_)) if report.lost.slots > 0 => "no TCP socket was found when it died".to_owned(),
        (0, Some(_)) => "no TCP socket was open when it died".to_owned(),
        (0, None) => "its open sockets are listed when it dies".to_owned(),
        (_, Some(_)) => format!("{sockets} open when it died: {}", parts.join(", ")),
        (_, None) => format!("{sockets}: {}", parts.join(", ")),
    }
}

/// What it closed itself, as a sentence: the largest groups with where they lead to.
fn left_while_alive(groups: &[LeftWhileAlive]) -> String {
    const NAMED: usize = 3;
    let total: u64 = groups.iter().map(|group| group.count).sum();
    let sockets = plural(total, "socket", "sockets");
    let place = |group: &LeftWhileAlive| {
        let end = |ip: IpAddr, port| SocketAddr::new(ip, port).to_string();
        let from = group
            .lport
            .map(|port| format!(" from {}", end(group.laddr, port)));
        let to = group.raddr.zip(group.rport);
        let to = to.map(|(ip, port)| format!(" towards {}", end(ip, port)));
        format!(
            "{}{}{}",
            left_as(group.outcome),
            from.unwrap_or_default(),
            to.unwrap_or_default()
        )
    };
    if let [only] = groups {
        return format!("while alive it left {sockets} {}", place(only));
    }
    let mut parts: Vec<String> = groups
        .iter()
        .take(NAMED)
        .map(|group| format!("{} {}", count(group.count), place(group)))
        .collect();
    let rest: u64 = groups.iter().skip(NAMED).map(|group| group.count).sum();
    if rest > 0 {
        parts.push(format!("{} more", count(rest)));
    }
    format!("while alive it left {sockets}: {}", parts.join(", "))
}

/// How a socket is left that its process closed or shut down.
fn left_as(left: Outcome) -> String {
    match left {
        Outcome::Held => "shut down and still held".to_owned(),
        Outcome::Unknown => "in an unknown state".to_owned(),
        left => format!("in {}", outcome(left)),
    }
}

fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = blind::sentences(&report.blind);
    let lost = &report.lost;
    if lost.inventory > 0 {
        let sockets = plural(lost.inventory, "socket", "sockets");
        remarks.push(format!(
            "{sockets} more did not fit into the inventory (--max-sockets)"
        ));
    }
    if lost.slots > 0 {
        let slots = plural(lost.slots, "descriptor was", "descriptors were");
        remarks.push(format!("{slots} not looked at (--max-sockets)"));
    }
    let unknown = report.summary.unknown;
    if lost.events > 0 && unknown > 0 {
        let events = plural(lost.events, "kernel event", "kernel events");
        let sockets = plural(unknown, "socket", "sockets");
        remarks.push(format!("missed {events}: what became of {sockets} is unknown"));
    }
    remarks
}

/// The last lines: what is still held, by whom, and until when the rest is there.
fn what_matters(report: &Report, style: &Style) -> Vec<String> {
    let mut lines: Vec<String> = holders(report)
        .iter()
        .map(|line| style.paint(Ink::Held, &wrap(line, style.columns(), 2)))
        .collect();
    let unseen = report.left_while_alive.iter();
    let unseen = unseen.filter(|group| group.outcome == Outcome::Unknown);
    let unseen: u64 = unseen.map(|group| group.count).sum();
    let unknown = (report.summary.unknown + unseen).saturating_add(report.lost.inventory);
    let mut left = leftovers(report)
        .filter(|left| left.outcome() != Outcome::Held)
        .map(|left| (left.freedom.at(), left.freedom.latest()))
        .peekable();
    if left.peek().is_some() {
        let text = free(report.time, left, style);
        lines.push(style.paint(Ink::Leftover, &wrap(&text, style.columns(), 2)));
    } else if lines.is_empty() && unknown == 0 {
        let text = match report.death {
            Some(_) if report.lost.slots > 0 => "nothing is left of what was looked at",
            Some(_) => "nothing is left: every socket is free",
            None => "nothing is left of what it closed itself",
        };
        lines.push(style.paint(Ink::Fine, text));
    }
    if unknown > 0 {
        let text = format!(
            "{}: what became of {} cannot be told",
            plural(unknown, "socket", "sockets"),
            if unknown == 1 { "it" } else { "them" }
        );
        lines.push(style.paint(Ink::Held, &wrap(&text, style.columns(), 2)));
    }
    lines
}

type Moments = (Option<Timestamp>, Option<Timestamp>);

fn free(now: Timestamp, moments: impl Iterator<Item = Moments> + Clone, style: &Style) -> String {
    let total = moments.clone().count() as u64;
    let open = moments.clone().filter(|(at, _)| at.is_none()).count() as u64;
    let at = moments.clone().filter_map(|(at, _)| at).max();
    let timed = moments.filter(|(at, _)| at.is_some());
    let latest: Option<Vec<Timestamp>> = timed.map(|(_, latest)| latest).collect();
    let mut text = plural(total, "leftover", "leftovers");
    if let Some(at) = at {
        let in_how_long = duration(at.duration_since(now));
        let which = if total == 1 { "free" } else { "the last one free" };
        text += &format!(": {which} at {} (in {in_how_long})", clock(at, &style.zone));
        let latest = latest.into_iter().flatten().max();
        if let Some(latest) = latest.filter(|&latest| latest > at) {
            text += &format!(", {}{UNLESS}", by(latest, &style.zone));
        }
    }
    if open > 0 {
        let end = if open == total { ": no end can be told" } else { "" };
        text += end;
        if end.is_empty() {
            text += &format!("; of {} no end can be told", count(open));
        }
    }
    text
}

/// PID, name, and how it came by what it holds.
type Who<'a> = (u32, &'a str, Option<How>);
/// A socket and the descriptor that holds it.
type Held<'a> = (&'a SocketReport, Option<u32>);

/// A line for each process that still holds sockets, and one for those that no process is seen to hold.
fn holders(report: &Report) -> Vec<String> {
    let mut by_holder: BTreeMap<Option<Who<'_>>, Vec<Held<'_>>> = BTreeMap::new();
    let mut nobodys = "still held by the kernel, no process has a descriptor";
    for socket in report
        .sockets
        .iter()
        .filter(|socket| socket.outcome == Outcome::Held)
    {
        for holder in &socket.holders {
            let who = (holder.pid, holder.comm.as_str(), holder.how);
            by_holder
                .entry(Some(who))
                .or_default()
                .push((socket, Some(holder.fd)));
        }
        if socket.holders.is_empty() {
            if socket.why != Why::InKernel {
                nobodys = "still held by the kernel, or by a process that cannot be asked";
            }
            by_holder.entry(None).or_default().push((socket, None));
        }
    }
    by_holder
        .into_iter()
        .map(|(who, held)| {
            let what = held_sockets(&held);
            match who {
                Some((pid, comm, by)) => {
                    let how = how(by).map_or_else(String::new, |how| format!(", {how}"));
                    format!("still held by {} (pid {pid}{how}): {what}", escape(comm))
                }
                None => format!("{nobodys}: {what}"),
            }
        })
        .collect()
}

/// Some of them by address and descriptor, the rest as a number.
fn held_sockets(held: &[Held<'_>]) -> String {
    first_few(held.iter().map(|(report, fd)| {
        let socket = &report.socket;
        let remote = socket
            .remote
            .map_or_else(String::new, |remote| format!(" to {remote}"));
        let fd = fd.map_or_else(String::new, |fd| format!(" (fd {fd})"));
        let state = state(Outcome::Held, report.state.or_else(|| Some(socket.last_state())));
        format!("{state} {}{remote}{fd}", socket.local)
    }))
}
