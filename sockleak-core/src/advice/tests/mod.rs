//! Each kind of advice, with the evidence that it needs and without.

mod connections;
mod listeners;
mod ports;

use std::net::SocketAddr;

use super::*;
use crate::observed::Evidence;
use crate::observed::LocalPorts;
use crate::observed::{Cause, Holding, Linger, Origin, Relation, ResetReason, Sighting, Timer};
use crate::testing::{addr, evidence, local_ports, outgoing, sample, sighting, socket};
use crate::verdict::examine;

fn with(sockets: Vec<Socket>, sightings: Vec<Sighting>) -> Evidence {
    evidence(sockets, sightings)
}

/// The evidence of that advice in the report.
fn grounds(evidence: Evidence, id: AdviceId) -> Option<Vec<(&'static str, Fact)>> {
    let advice = examine(evidence).advice;
    let mut found = advice.into_iter().filter(|piece| piece.id == id);
    let first = found.next();
    assert!(found.next().is_none(), "{id:?} is said once");
    first.map(|piece| piece.evidence)
}

fn is_said(evidence: Evidence, id: AdviceId) -> bool {
    grounds(evidence, id).is_some()
}

fn count(evidence: Evidence, id: AdviceId) -> Option<Fact> {
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
    let ids: Vec<_> = sample().advice.iter().map(|piece| piece.id).collect();
    assert_eq!(
        ids,
        [
            AdviceId::InheritedListener,
            AdviceId::CoreDumpHeldPort,
            AdviceId::UnreadDataReset,
            AdviceId::UnreachablePeer
        ]
    );
}

/// So no two ids have the same name, and a name tells which id it is.
#[test]
fn a_name_is_its_id_in_snake_case() {
    for id in AdviceId::ALL {
        let mut snake_case = String::new();
        for letter in format!("{id:?}").chars() {
            if letter.is_ascii_uppercase() && !snake_case.is_empty() {
                snake_case.push('_');
            }
            snake_case.push(letter.to_ascii_lowercase());
        }
        assert_eq!(id.name(), snake_case);
    }
}
