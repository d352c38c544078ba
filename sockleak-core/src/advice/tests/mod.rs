//! Each kind of advice, with the evidence that it needs and without.

mod connections;
mod listeners;
mod ports;

use std::net::SocketAddr;

use super::*;
use crate::observed::Evidence;
use crate::observed::{Cause, Holding, Linger, Origin, Relation, ResetReason, Sighting, Timer};
use crate::port::LocalPorts;
use crate::testing::{addr, evidence, local_ports, outgoing, sample, sighting, socket};
use crate::verdict::examine;

fn with(sockets: Vec<Socket>, sightings: Vec<Sighting>) -> Evidence {
    evidence(sockets, sightings)
}

/// The evidence of that advice in the report.
fn grounds(evidence: Evidence, id: &str) -> Option<Vec<(&'static str, Fact)>> {
    let advice = examine(evidence).advice;
    let mut found = advice.into_iter().filter(|piece| piece.words.id == id);
    let first = found.next();
    assert!(found.next().is_none(), "{id} is said once");
    first.map(|piece| piece.evidence)
}

fn is_said(evidence: Evidence, id: &str) -> bool {
    grounds(evidence, id).is_some()
}

fn count(evidence: Evidence, id: &str) -> Option<Fact> {
    grounds(evidence, id).map(|facts| facts[0].1.clone())
}

fn listener(reuseaddr: bool, reuseport: bool) -> Socket {
    socket(State::Listen)
        .changes(&[(State::Listen, State::Close)])
        .with(|socket| {
            socket.local = addr("0.0.0.0:8080");
            (socket.cookie, socket.inode, socket.id.sk) = (Some(1), Some(1), 1);
            (socket.reuseaddr, socket.reuseport) = (reuseaddr, reuseport);
        })
        .build()
}

/// A connection that the listener had accepted, and what it left.
fn accepted(reuseaddr: bool, reuseport: bool, left: State) -> (Socket, Sighting) {
    let socket = socket(State::Established)
        .changes(&[(State::Established, State::FinWait1)])
        .with(|socket| (socket.reuseaddr, socket.reuseport) = (reuseaddr, reuseport))
        .build();
    let left = sighting(&socket, left);
    (socket, left)
}

/// A server that listened, and one connection that it left.
fn server(reuseaddr: bool, reuseport: bool) -> Evidence {
    let (connection, left) = accepted(reuseaddr, reuseport, State::TimeWait);
    with(vec![listener(reuseaddr, reuseport), connection], vec![left])
}

#[test]
fn nothing_is_said_without_a_reason() {
    assert_eq!(examine(with(Vec::new(), Vec::new())).advice, []);
    let listener = listener(true, false);
    assert_eq!(examine(with(vec![listener], Vec::new())).advice, []);
}

#[test]
fn what_a_restart_needs_comes_first() {
    let ids: Vec<_> = sample().advice.iter().map(|piece| piece.words.id).collect();
    assert_eq!(
        ids,
        [
            "inherited_listener",
            "core_dump_held_port",
            "unread_data_reset",
            "unreachable_peer"
        ]
    );
}

/// Every sentence that may be said.
fn sentences() -> impl Iterator<Item = &'static str> {
    PIECES.iter().flat_map(|piece| {
        let words = piece.words;
        let runtimes = words.runtimes.iter().map(|(_, how)| *how);
        let vain = words.will_not_help.iter().copied();
        [words.brief, words.text, words.cost]
            .into_iter()
            .chain(runtimes)
            .chain(vain)
    })
}

#[test]
fn folklore_is_not_repeated() {
    let folklore = [
        "tcp_tw_recycle",
        "tcp_max_tw_buckets",
        "tcp_fin_timeout",
        "five minutes",
        "5 minutes",
        "5 min",
    ];
    for sentence in sentences() {
        let lower = sentence.to_lowercase();
        assert!(!folklore.iter().any(|words| lower.contains(words)), "{sentence}");
    }
}

#[test]
fn every_piece_is_complete() {
    let mut ids: Vec<_> = PIECES.iter().map(|piece| piece.words.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), PIECES.len());
    for Piece { words, .. } in &PIECES {
        let names: Vec<_> = words.runtimes.iter().map(|(name, _)| *name).collect();
        assert!(
            names == ["any"] || names == ["c", "python", "go", "node", "java", "rust"],
            "{}",
            words.id
        );
        assert!(
            !words.will_not_help.is_empty() && !words.cost.is_empty(),
            "{}",
            words.id
        );
        assert!(words.brief.len() <= 84, "{}", words.id);
        assert!(
            words.text.len() <= 400 && words.text.ends_with('.'),
            "{}",
            words.id
        );
        assert!(
            words
                .id
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '_')
        );
    }
}
