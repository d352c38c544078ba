//! What the deaths of one incident add up to.

use std::collections::HashSet;

use super::state::Part;
use crate::advice::Advice;
use crate::port::Restart;
use crate::verdict::{Outcome, Report, Summary};

/// Processes and addresses that are named when the incident is closed. More processes are only counted, and of more addresses
/// the latest are named: a family that recycles its workers for ever may never be quiet.
const NAMED: usize = 200;

#[derive(Default)]
pub struct Totals {
    parts: Vec<Part>,
    unnamed: u64,
    summary: Summary,
    /// Inodes of sockets that a report called held: only those can be in another report. A held socket has its inode for
    /// itself, with or without a cookie.
    held: HashSet<u64>,
    /// The latest of each address and port, the most recent last.
    restart: Vec<Restart>,
    advice: Vec<Advice>,
}

impl Totals {
    /// Adds a report and the part of its process.
    pub fn add(&mut self, report: &Report, part: Part) {
        if self.parts.len() < NAMED {
            self.parts.push(part);
        } else {
            self.unnamed += 1;
        }
        for socket in &report.sockets {
            let inode = socket.socket.inode.unwrap_or_default();
            if self.held.remove(&inode) {
                self.summary.held -= 1;
            }
            if socket.outcome == Outcome::Held && inode != 0 {
                self.held.insert(inode);
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
