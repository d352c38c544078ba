//! What the deaths of one incident add up to.

use std::collections::HashMap;

use super::state::Part;
use crate::advice::Advice;
use crate::port::Restart;
use crate::verdict::{Outcome, Report, SocketReport, Summary};

/// Processes and addresses that are named when the incident is closed. More processes are only counted, and of more addresses
/// the latest are named: a family that recycles its workers for ever may never be quiet.
const NAMED: usize = 200;
/// Sockets that are remembered: by then the first of a family that never ends are in no further report.
const KNOWN: usize = 1 << 16;

#[derive(Default)]
pub struct Totals {
    parts: Vec<Part>,
    unnamed: u64,
    summary: Summary,
    /// What became of sockets that may be in another report, by their inodes: an open socket has its inode for itself,
    /// with or without a cookie.
    known: HashMap<u64, Outcome>,
    /// The latest of each address and port, the most recent last.
    restart: Vec<Restart>,
    advice: Vec<Advice>,
}

impl Totals {
    /// Adds a report and the part of its process. One that is `alone` shares its sockets with nobody.
    pub fn add(&mut self, report: &Report, part: Part, alone: bool) {
        if self.parts.len() < NAMED {
            self.parts.push(part);
        } else {
            self.unnamed += 1;
        }
        for socket in &report.sockets {
            if !alone {
                self.forget(socket);
            }
            *self.summary.count(socket.outcome) += 1;
        }
        for restart in &report.restart {
            self.restart.retain(|known| known.endpoint != restart.endpoint);
            self.restart.push(restart.clone());
        }
        let surplus = self.restart.len().saturating_sub(NAMED);
        self.restart.drain(..surplus);
        for advice in &report.advice {
            self.advice.retain(|known| known.id != advice.id);
            self.advice.push(advice.clone());
        }
    }

    /// Takes a socket out of the sum that an earlier report had: the latest tells what became of it. Its references do not
    /// tell whether there was one, as who dies last may be reported first.
    fn forget(&mut self, socket: &SocketReport) {
        let Some(inode) = socket.socket.inode.filter(|inode| *inode != 0) else {
            return;
        };
        if self.known.len() == KNOWN {
            self.known.clear();
        }
        if let Some(before) = self.known.insert(inode, socket.outcome) {
            *self.summary.count(before) -= 1;
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// The processes that are named and how many are not, the restarts by address, and the advice.
    pub fn take(mut self) -> (Vec<Part>, u64, Vec<Restart>, Vec<Advice>) {
        self.restart.sort_unstable_by_key(|restart| restart.endpoint);
        (self.parts, self.unnamed, self.restart, self.advice)
    }
}
