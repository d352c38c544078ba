//! What the process closed or shut down itself while it was watched, and what of it still exists.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::expiry::{FreeRule, Freedom, LastFree};
use crate::observed::{Socket, State, Transition};
use crate::verdict::decide::leftover;
use crate::verdict::{LeftWhileAlive, Leftover, Outcome, Side, Sides};

/// The records of the living process that are not about a socket of the inventory: a shut down connection whose
/// descriptor was still open at the death has a record there too.
pub(crate) fn beside_inventory<'a, 'b>(
    live: &'a [Box<Socket>],
    inventory: impl Iterator<Item = &'b Socket>,
) -> Vec<&'a Socket> {
    if live.is_empty() {
        return Vec::new();
    }
    let inventory: HashMap<u64, &Socket> = inventory.map(|socket| (socket.id.sk, socket)).collect();
    let is_there = |live: &Socket| {
        inventory.get(&live.id.sk).is_some_and(|socket| {
            let cookies_differ =
                matches!((live.cookie, socket.cookie), (Some(one), Some(other)) if one != other);
            // The slab may have given the memory of an earlier socket to this one.
            live.local == socket.local && live.remote == socket.remote && !cookies_differ
        })
    };
    live.iter()
        .map(Box::as_ref)
        .filter(|live| !is_there(live))
        .collect()
}

/// The groups, largest first. `leftovers` are the records and what each of them left, `unseen` those of which it is not
/// known; `listeners` the local ports that the process listened on.
pub(crate) fn group<'a>(
    leftovers: &[(&'a Socket, Leftover)],
    unseen: &[&'a Socket],
    listeners: impl Iterator<Item = &'a Socket>,
    time: Timestamp,
) -> Vec<LeftWhileAlive> {
    let seen = leftovers
        .iter()
        .map(|(socket, left)| (*socket, left.outcome(), left.freedom, Some(left.cookie)));
    let unseen = unseen.iter().map(|socket| {
        (
            *socket,
            Outcome::Unknown,
            Freedom::open(FreeRule::Unknown),
            socket.cookie,
        )
    });
    let all = seen.chain(unseen);
    let connections = all.clone().map(|(socket, ..)| (socket.local, socket.remote));
    let listeners = listeners.map(|listener| (listener.local, None));
    let sides = Sides::count(connections.chain(listeners));

    let mut groups: HashMap<Key, LeftWhileAlive> = HashMap::new();
    let mut freedoms: HashMap<Key, Vec<Freedom>> = HashMap::new();
    for (socket, outcome, freedom, cookie) in all {
        let side = sides.of(socket.local, socket.remote);
        let key = Key {
            netns: socket.netns,
            laddr: socket.local.ip(),
            lport: (side != Side::Client).then_some(socket.local.port()),
            raddr: socket.remote.map(|remote| remote.ip()),
            rport: socket
                .remote
                .map(|remote| remote.port())
                .filter(|_| side != Side::Server),
            outcome,
        };
        let closed = socket.transitions.first().map_or(time, Transition::time);
        let group = groups.entry(key).or_insert(LeftWhileAlive {
            netns: key.netns,
            laddr: key.laddr,
            lport: key.lport,
            raddr: key.raddr,
            rport: key.rport,
            outcome: key.outcome,
            count: 0,
            cookies: Vec::new(),
            last_closed: closed,
            last_free: LastFree::default(),
        });
        group.count += 1;
        group.cookies.extend(cookie);
        group.last_closed = group.last_closed.max(closed);
        freedoms.entry(key).or_default().push(freedom);
    }
    for (key, freedoms) in freedoms {
        if let Some(group) = groups.get_mut(&key) {
            group.last_free = LastFree::of(freedoms.into_iter());
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_unstable_by(|(key, group), (other_key, other)| {
        other.count.cmp(&group.count).then_with(|| key.cmp(other_key))
    });
    let mut groups: Vec<LeftWhileAlive> = groups.into_iter().map(|(_, group)| group).collect();
    for group in &mut groups {
        group.cookies.sort_unstable();
    }
    groups
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    outcome: Outcome,
    laddr: IpAddr,
    lport: Option<u16>,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    netns: u32,
}

impl Leftover {
    /// What it is now.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.freedom.rule == FreeRule::Holder {
            return Outcome::Held;
        }
        leftover(self.state).unwrap_or(Outcome::Unknown)
    }
}

/// True for what a closed connection may leave: everything but what still waits to be closed.
pub(crate) fn is_leftover(state: State, inode: u64) -> bool {
    inode != 0 || leftover(state).is_some()
}
