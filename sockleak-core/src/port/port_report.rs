//! Who has a port now, and whether a restart can have it: the answer for someone who comes after the crash.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;

use crate::expiry::FreeRule;
use crate::expiry::Freedom;
use crate::observed::{BlindSpot, PortFile, Protocol, Snapshot, State};
use crate::port::restart_decision::Terms;
use crate::port::{Addressing, Answer, Endpoint, Occupant, PortOwner, Restart, Reuse, occupants};
use crate::verdict::{Holder, How};

/// All that was seen of one port.
#[derive(Clone, Debug)]
pub struct PortEvidence {
    pub time: Timestamp,
    pub port: u16,
    /// Inode of the network namespace that a restart is asked about.
    pub own: u32,
    /// Where it would bind: for every namespace that has the port, and for the own one.
    pub addresses: Vec<Endpoint>,
    /// One look at each network namespace that could be entered.
    pub looks: Vec<Snapshot>,
    /// The descriptors that lead to sockets of the port.
    pub files: Vec<PortFile>,
    /// The parents of their processes, and of those, as far as they are there.
    pub parents: HashMap<u32, u32>,
    /// Those of their processes that write a core dump.
    pub dumping: HashSet<u32>,
    /// Inodes of the network namespaces in which the user that is asked for may not have a port of this number.
    pub forbidden: HashSet<u32>,
    /// What could not be seen.
    pub blind: Vec<BlindSpot>,
    /// CONFIG_HZ, for the slack of the timer wheel.
    pub hz: u32,
}

/// Everything that has a port.
#[derive(Clone, Debug)]
pub struct PortReport {
    /// When sock_diag was read.
    pub time: Timestamp,
    pub port: u16,
    /// Inode of the network namespace that a restart is asked about.
    pub own: u32,
    /// In the own namespace first.
    pub sockets: Vec<PortSocket>,
    /// For the own namespace first, and then for each other one that has the port.
    pub restart: Vec<Restart>,
    pub blind: Vec<BlindSpot>,
}

/// A socket that has the port, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSocket {
    pub occupant: Occupant,
    /// The name of the device that it is bound to; `None` for none, and where the name is not known.
    pub device: Option<String>,
    pub holders: Vec<PortHolder>,
}

/// A process that has a descriptor of such a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    pub pid: u32,
    pub comm: String,
    pub fd: u32,
    /// `None` where it cannot be told: only an ancestor that still has it under the same number shows that.
    pub how: Option<How>,
    /// It is dead already, and keeps what it has until its core dump is written.
    pub dumping_core: bool,
}

impl From<Occupant> for PortSocket {
    fn from(occupant: Occupant) -> Self {
        Self {
            occupant,
            device: None,
            holders: Vec::new(),
        }
    }
}

impl PortReport {
    /// Joins what was seen.
    #[must_use]
    pub fn examine(evidence: PortEvidence) -> Self {
        let ports = BTreeSet::from([evidence.port]);
        let mut sockets: Vec<PortSocket> = evidence
            .looks
            .iter()
            .flat_map(|look| occupants(look, &ports, &[], &[], evidence.hz))
            .map(PortSocket::from)
            .collect();
        let mut files = evidence.files;
        files.sort_by_key(|file| (file.pid, file.fd));
        let mut holders_of: HashMap<(u64, u32), HashSet<u32>> = HashMap::new();
        for file in &files {
            let same = holders_of.entry((file.owner.inode, file.fd)).or_default();
            same.insert(file.pid);
        }
        let mut places = Places::of(&sockets);
        for file in files {
            let others = holders_of.get(&(file.owner.inode, file.fd));
            let inherited = others.is_some_and(|others| inherited(file.pid, others, &evidence.parents));
            let place = places.find(&file.owner, &sockets).unwrap_or_else(|| {
                sockets.push(PortSocket::from(Occupant {
                    owner: file.owner.clone().into(),
                    freedom: Freedom::open(FreeRule::Holder),
                    holder: None,
                }));
                places.add(&file.owner, sockets.len() - 1);
                sockets.len() - 1
            });
            let occupant = &mut sockets[place].occupant;
            if occupant.owner.sk == 0 {
                // sock_diag does not tell its options.
                occupant.owner = file.owner.into();
            }
            occupant.freedom = Freedom::open(FreeRule::Holder);
            let how = inherited.then_some(How::Inherited);
            occupant.holder.get_or_insert_with(|| {
                Box::new(Holder {
                    pid: file.pid,
                    comm: file.comm.clone(),
                    fd: file.fd,
                    how,
                })
            });
            sockets[place].holders.push(PortHolder {
                pid: file.pid,
                comm: file.comm,
                fd: file.fd,
                how,
                dumping_core: evidence.dumping.contains(&file.pid),
            });
        }
        for socket in &mut sockets {
            let owner = &socket.occupant.owner;
            let mut looks = evidence.looks.iter();
            let look = looks.find(|look| look.netns == owner.netns);
            let device = look.and_then(|look| look.addressing.device(owner.device));
            socket.device = device.map(|device| device.name.clone());
        }
        let own = evidence.own;
        sockets.sort_by_key(|socket| (socket.occupant.owner.netns != own, socket.occupant.owner.netns));

        let mut namespaces = vec![own];
        namespaces.extend(sockets.iter().map(|socket| socket.occupant.owner.netns));
        namespaces.dedup();
        let terms = |netns| {
            let look = evidence.looks.iter().find(|look| look.netns == netns);
            Terms {
                addressing: look.map_or(const { &Addressing::NOTHING }, |look| &look.addressing),
                all_seen: look.is_some_and(|look| look.shows_bound),
                may_have_port: !evidence.forbidden.contains(&netns),
            }
        };
        let restart = namespaces
            .into_iter()
            .flat_map(|netns| {
                let here: Vec<Occupant> = sockets
                    .iter()
                    .map(|socket| &socket.occupant)
                    .filter(|occupant| occupant.owner.netns == netns)
                    .cloned()
                    .collect();
                // A device has another number elsewhere, or is not there.
                let is_here = |endpoint: &&Endpoint| endpoint.device == 0 || netns == own;
                let endpoints = evidence.addresses.iter().filter(is_here);
                endpoints
                    .map(|endpoint| Restart::decide(Endpoint { netns, ..*endpoint }, &here, terms(netns)))
                    .collect::<Vec<_>>()
            })
            .collect();
        Self {
            time: evidence.time,
            port: evidence.port,
            own,
            sockets,
            restart,
            blind: evidence.blind,
        }
    }

    /// The verdicts of the own namespace for these options.
    fn own_verdicts(&self, reuse: Reuse) -> impl Iterator<Item = &super::BindVerdict> {
        self.restart
            .iter()
            .filter(|restart| restart.endpoint.netns == self.own)
            .filter_map(move |restart| restart.verdict(reuse))
    }

    /// A restart with these options succeeds now, in the own namespace, at every address that was asked for.
    #[must_use]
    pub fn is_free(&self, reuse: Reuse) -> bool {
        self.own_verdicts(reuse)
            .all(|verdict| verdict.answer() == Answer::Ok)
    }

    /// Nothing is seen in the way of such a restart, and not everything could be seen: waiting does not change that.
    #[must_use]
    pub fn is_unseen(&self, reuse: Reuse) -> bool {
        let mut blocked = self
            .own_verdicts(reuse)
            .filter(|verdict| verdict.answer() != Answer::Ok)
            .peekable();
        blocked.peek().is_some() && blocked.all(super::BindVerdict::is_unseen)
    }

    /// No end of any socket makes such a restart succeed, nor an address that comes back.
    #[must_use]
    pub fn is_hopeless(&self, reuse: Reuse) -> bool {
        let refused =
            |verdict: &super::BindVerdict| matches!(verdict.bind, Answer::Invalid | Answer::Permission);
        self.own_verdicts(reuse).any(refused)
    }

    /// When it succeeds if nothing more arrives; `None` when it does now, or where no moment can be told.
    #[must_use]
    pub fn free_at(&self, reuse: Reuse) -> Option<Timestamp> {
        let blocked = self
            .own_verdicts(reuse)
            .filter(|verdict| verdict.answer() != Answer::Ok);
        let moments: Option<Vec<Timestamp>> = blocked.map(|verdict| verdict.free_at).collect();
        moments?.into_iter().max()
    }
}

/// Where in the list each socket is.
#[derive(Default)]
struct Places {
    by_sk: HashMap<u64, usize>,
    by_inode: HashMap<u64, usize>,
}

impl Places {
    fn of(sockets: &[PortSocket]) -> Self {
        let mut places = Self::default();
        for (index, socket) in sockets.iter().enumerate() {
            places.add(&socket.occupant.owner, index);
        }
        places
    }

    /// A number that is 0 was not seen.
    fn add(&mut self, owner: &PortOwner, index: usize) {
        if owner.sk != 0 {
            self.by_sk.insert(owner.sk, index);
        }
        if owner.inode != 0 {
            self.by_inode.insert(owner.inode, index);
        }
    }

    /// The socket that a descriptor leads to. An MPTCP socket has its port by a subflow, which no descriptor
    /// leads to.
    fn find(&self, of_file: &PortOwner, sockets: &[PortSocket]) -> Option<usize> {
        let known = self
            .by_sk
            .get(&of_file.sk)
            .or_else(|| self.by_inode.get(&of_file.inode));
        if known.is_some() || of_file.protocol != Protocol::Mptcp {
            return known.copied();
        }
        let bound = |state| matches!(state, State::Close | State::BoundInactive);
        sockets.iter().position(|socket| {
            let owner = &socket.occupant.owner;
            let alike = owner.state == of_file.state || (bound(owner.state) && bound(of_file.state));
            let key = |owner: &PortOwner| (owner.netns, owner.local, owner.remote);
            alike && key(owner) == key(of_file)
        })
    }
}

/// An ancestor has the same socket under the same number, which is what fork() leaves.
fn inherited(pid: u32, others: &HashSet<u32>, parents: &HashMap<u32, u32>) -> bool {
    let mut seen = HashSet::from([pid]);
    let mut current = pid;
    while let Some(parent) = parents.get(&current).filter(|parent| seen.insert(**parent)) {
        if others.contains(parent) {
            return true;
        }
        current = *parent;
    }
    false
}

#[cfg(test)]
#[path = "port_report_tests.rs"]
mod tests;
