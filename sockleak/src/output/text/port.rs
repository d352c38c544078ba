//! Who has a port, as text: its sockets, who holds them, and what a restart meets.

use std::collections::BTreeMap;

use sockleak_core::port::{Answer, PortHolder, PortReport, PortSocket, Restart, Reuse};
use sockleak_core::verdict::Outcome;

use super::groups::of_port;
use super::restart::restarts;
use super::style::{Ink, Style};
use super::table::table;
use super::words::{first_few, how, place, plural, state, wrap};
use crate::output::blind;
use crate::output::escape;

/// The lines about a port; some hold several.
pub(super) fn port(report: &PortReport, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    let (own, others): (Vec<&PortSocket>, Vec<&PortSocket>) = report
        .sockets
        .iter()
        .partition(|socket| socket.occupant.owner.netns == report.own);
    lines.push(style.paint(Ink::Headline, &headline(report, own.len() as u64)));
    lines.append(&mut sockets(&own, style));
    let mut namespaces: BTreeMap<u32, Vec<&PortSocket>> = BTreeMap::new();
    for socket in others {
        let netns = socket.occupant.owner.netns;
        namespaces.entry(netns).or_default().push(socket);
    }
    for (netns, there) in namespaces {
        let number = plural(there.len() as u64, "socket", "sockets");
        lines.push(String::new());
        let text = format!(
            "in the network namespace net:[{netns}] {number}, which is nothing to a restart in this one"
        );
        lines.push(wrap(&text, style.columns(), 2));
        lines.append(&mut sockets(&there, style));
    }
    if !report.blind.is_empty() {
        lines.push(String::new());
        let notes = blind::sentences(&report.blind);
        let note = |sentence: &String| wrap(&format!("note: {}", escape(sentence)), style.columns(), 6);
        lines.extend(notes.iter().map(note));
    }
    lines.push(String::new());
    lines.append(&mut restarts(&own_restarts(report), report.time, style));
    lines
}

/// What is in the way of a restart with these options, for somebody who has waited long enough.
pub(super) fn still_in_use(report: &PortReport, reuse: Reuse, style: &Style) -> Vec<String> {
    let blocked: Vec<Restart> = own_restarts(report)
        .into_iter()
        .filter(|restart| {
            restart
                .verdict(reuse)
                .is_some_and(|verdict| verdict.answer() != Answer::Ok)
        })
        .collect();
    restarts(&blocked, report.time, style)
}

fn own_restarts(report: &PortReport) -> Vec<Restart> {
    let own = |restart: &&Restart| restart.endpoint.netns == report.own;
    report.restart.iter().filter(own).cloned().collect()
}

fn headline(report: &PortReport, sockets: u64) -> String {
    let port = report.port;
    match sockets {
        0 if report.is_unseen(Reuse::default()) => format!("port {port}: no socket is seen that has it"),
        0 => format!("port {port}: no socket has it"),
        _ => format!("port {port}: {}", plural(sockets, "socket", "sockets")),
    }
}

fn sockets(sockets: &[&PortSocket], style: &Style) -> Vec<String> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut lines = table(&of_port(sockets), style);
    let held = holders(sockets);
    lines.extend(
        held.iter()
            .map(|line| style.paint(Ink::Held, &wrap(line, style.columns(), 2))),
    );
    lines
}

/// A line for each process that has descriptors.
fn holders(sockets: &[&PortSocket]) -> Vec<String> {
    type Who<'a> = (u32, &'a str, Option<sockleak_core::verdict::How>, bool);
    let mut by_holder: BTreeMap<Who<'_>, Vec<(&PortSocket, &PortHolder)>> = BTreeMap::new();
    for socket in sockets {
        for holder in &socket.holders {
            let who = (holder.pid, holder.comm.as_str(), holder.how, holder.dumping_core);
            by_holder.entry(who).or_default().push((socket, holder));
        }
    }
    by_holder
        .into_iter()
        .map(|((pid, comm, by, dumping), held)| {
            let how = how(by).map_or_else(String::new, |how| format!(", {how}"));
            let dumping = if dumping {
                ", which is dead and keeps them until its core dump is written"
            } else {
                ""
            };
            let parts = held.iter().map(|(socket, holder)| {
                let owner = &socket.occupant.owner;
                let remote = owner
                    .remote
                    .map_or_else(String::new, |remote| format!(" to {remote}"));
                let state = state(Outcome::Held, Some(owner.state));
                let local = place(owner.local.ip(), socket.device.as_deref(), owner.local.port());
                format!("{state} {local}{remote} (fd {})", holder.fd)
            });
            format!(
                "held by {} (pid {pid}{how}){dumping}: {}",
                escape(comm),
                first_few(parts)
            )
        })
        .collect()
}
