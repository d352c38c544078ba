//! What became of each socket of an inventory.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::expiry::FreeRule;
use crate::expiry::Freedom;
use crate::observed::{Holding, Relation, Snapshot, Socket};
use crate::verdict::decide::{Ending, decide};
use crate::verdict::join::{Sight, join};
use crate::verdict::socket_verdict::Verdict;
use crate::verdict::{Holder, How, Outcome, left_while_alive, mptcp};

/// What the looks at the kernel said about the sockets of one process.
pub(crate) struct Sights<'e> {
    pub sockets: Vec<Sight<'e>>,
    /// Of all their subflows in a row.
    pub subflows: Vec<Sight<'e>>,
    /// Of what the process closed itself and is not in its inventory.
    pub closed_alive: Vec<(&'e Socket, Sight<'e>)>,
}

impl<'e> Sights<'e> {
    pub fn find(sockets: &[Box<Socket>], closed_alive: &'e [Box<Socket>], snapshots: &'e [Snapshot]) -> Self {
        let recorded = || {
            let subflows = sockets.iter().flat_map(|socket| &socket.subflows);
            sockets.iter().map(Box::as_ref).chain(subflows)
        };
        let closed = left_while_alive::beside_inventory(closed_alive, recorded());
        let all: Vec<&Socket> = recorded().chain(closed.iter().copied()).collect();
        let mut sights = join(&all, snapshots);
        let of_closed = sights.split_off(sights.len() - closed.len());
        Self {
            subflows: sights.split_off(sockets.len()),
            sockets: sights,
            closed_alive: closed.into_iter().zip(of_closed).collect(),
        }
    }
}

/// What the verdicts of one process rest on, besides its sockets.
pub(crate) struct Judge {
    /// By inode.
    holders: HashMap<u64, Vec<Holder>>,
    /// Descriptors of some processes could not be read.
    is_unreadable: bool,
    time: Timestamp,
    hz: u32,
}

impl Judge {
    pub fn new(holdings: &[Holding], is_unreadable: bool, time: Timestamp, hz: u32) -> Self {
        Self {
            holders: holders_by_inode(holdings),
            is_unreadable,
            time,
            hz,
        }
    }

    /// The verdicts, in the order of the sockets.
    pub fn verdicts(mut self, sockets: &[Box<Socket>], sights: &Sights<'_>) -> Vec<Verdict> {
        let mut subflows = &sights.subflows[..];
        let mut verdicts = Vec::with_capacity(sockets.len());
        for (socket, sight) in sockets.iter().zip(&sights.sockets) {
            let (own, rest) = subflows.split_at(socket.subflows.len());
            subflows = rest;
            verdicts.push(self.verdict(socket, *sight, own));
        }
        verdicts
    }

    fn verdict(&mut self, socket: &Socket, sight: Sight<'_>, subflow_sights: &[Sight<'_>]) -> Verdict {
        let inode = match sight {
            Sight::Seen(_, sighting) if sighting.inode != 0 => Some(sighting.inode),
            _ => socket.inode,
        };
        let mut holders = inode
            .and_then(|inode| self.holders.remove(&inode))
            .unwrap_or_default();
        doubt_other_descriptors(&mut holders, &socket.fds);
        recognize_shared_tables(&mut holders, socket);
        let mut verdict = self.of_one(socket, sight, holders, self.is_unreadable);
        let subflows = socket.subflows.iter().zip(subflow_sights);
        verdict.subflows = subflows
            .map(|(subflow, sight)| self.of_subflow(subflow, *sight))
            .collect();
        mptcp::settle(&mut verdict, &socket.subflows);
        verdict
    }

    fn of_subflow(&self, subflow: &Socket, sight: Sight<'_>) -> Verdict {
        match sight {
            Sight::Seen(snapshot, sighting) => {
                let sighting = mptcp::without_file(sighting);
                self.of_one(subflow, Sight::Seen(snapshot, &sighting), Vec::new(), false)
            }
            unseen => self.of_one(subflow, unseen, Vec::new(), false),
        }
    }

    fn of_one(
        &self,
        socket: &Socket,
        sight: Sight<'_>,
        holders: Vec<Holder>,
        is_unreadable: bool,
    ) -> Verdict {
        let (outcome, why) = decide(socket, sight, &holders, is_unreadable);
        let freedom = match (outcome, sight) {
            (Outcome::Held, _) => Freedom::open(FreeRule::Holder),
            (Outcome::Reset | Outcome::Closed, _) => Freedom::now(self.time),
            (_, Sight::Seen(snapshot, sighting)) => {
                Freedom::of(sighting, snapshot, self.hz, socket.fin_wait2_since())
            }
            // Mini sockets end with their namespace; full orphans keep it.
            (_, Sight::Unreachable) if Ending::of(socket) == Ending::TimeWait => {
                Freedom::open(FreeRule::NetnsGone)
            }
            _ => Freedom::open(FreeRule::Unknown),
        };
        let (state, seen_cookie) = match sight {
            Sight::Seen(_, sighting) => (Some(sighting.state), Some(sighting.cookie)),
            _ => (None, None),
        };
        Verdict {
            outcome,
            state,
            seen_cookie,
            why,
            // Descriptors found by an inode that was given to another socket since are nobody's concern here.
            holders: if outcome == Outcome::Held {
                holders
            } else {
                Vec::new()
            },
            freedom,
            subflows: Vec::new(),
        }
    }
}

fn holders_by_inode(holdings: &[Holding]) -> HashMap<u64, Vec<Holder>> {
    let mut holders: HashMap<u64, Vec<Holder>> = HashMap::new();
    for holding in holdings {
        holders.entry(holding.inode).or_default().push(Holder {
            pid: holding.pid,
            comm: holding.comm.clone(),
            fd: holding.fd,
            how: match holding.relation {
                Relation::Family => Some(How::Inherited),
                Relation::SharedTable => Some(How::SharedTable),
                Relation::Received => Some(How::Received),
                Relation::Unknown => None,
            },
        });
    }
    for holders in holders.values_mut() {
        holders.sort_unstable_by_key(|holder| (holder.pid, holder.fd));
    }
    holders
}

/// fork() keeps the numbers of descriptors. A relative that has the socket under another number may have got
/// it over a unix socket, or may have moved it after the fork: that was not seen.
fn doubt_other_descriptors(holders: &mut [Holder], fds: &[u32]) {
    for holder in holders {
        if holder.how == Some(How::Inherited) && !fds.contains(&holder.fd) {
            holder.how = None;
        }
    }
}

/// No other table had a reference to the file, so whoever has it under the same number uses the same table.
fn recognize_shared_tables(holders: &mut [Holder], socket: &Socket) {
    if socket.may_be_shared() {
        return;
    }
    for holder in holders
        .iter_mut()
        .filter(|holder| socket.fds.contains(&holder.fd))
    {
        holder.how = Some(How::SharedTable);
    }
}
