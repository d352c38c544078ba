//! The sockets of one network namespace.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;

use anyhow::Result;
use sockleak_core::leftover::{Action, Attempt, DiscardRule, Powers, Reason, Recorded, Removable, Removal};
use sockleak_core::observed::{Family, Protocol, Sighting};
use sockleak_core::verdict::Holder;
use sockleak_kernel::netns::Netns;
use sockleak_kernel::sock_diag::{DestroyError, Filter, SockDiag, SockDiagError};

/// What one look showed, by cookie. A socket that the kernel turned into a mini socket meanwhile may be told twice.
type Look = HashMap<u64, Sighting>;

/// What may be done.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub powers: Powers,
    /// The user accepts to lose what peers have not acknowledged.
    pub discard_unsent: bool,
}

impl Terms {
    fn rule(&self, look: &Look) -> DiscardRule {
        if self.discard_unsent {
            DiscardRule::Always
        } else {
            DiscardRule::abandoned(look.values())
        }
    }
}

pub struct Task {
    /// `None` where the namespace cannot be entered.
    diag: Option<SockDiag>,
    /// What a look shows.
    protocols: &'static [Protocol],
    filter: Filter,
    /// The look that the plan was made by.
    seen: Look,
    pub removals: Vec<Removal>,
}

impl Task {
    /// Plans for every socket with that local port in the caller's namespace.
    pub fn of_port(port: u16, terms: &Terms) -> Result<Self> {
        let netns = Netns::current()?.inode();
        let mut diag = SockDiag::open(None)?;
        // The subflows of an MPTCP socket are there in its place.
        let protocols = &[Protocol::Tcp];
        let filter = Filter::all().local_ports([port]);
        let seen = look(&mut diag, protocols, &filter)?;
        let rule = terms.rule(&seen);
        let mut removals: Vec<Removal> = seen
            .values()
            .map(|sighting| Removal::plan(netns, sighting, &rule, &terms.powers))
            .collect();
        removals.sort_unstable_by_key(|removal| (removal.local, removal.remote, removal.cookie));
        Ok(Self {
            diag: Some(diag),
            protocols,
            filter,
            seen,
            removals,
        })
    }

    /// Plans for sockets of an earlier report. The inode of their namespace may be another's by now, and their
    /// addresses may be the restarted service's: the cookie decides.
    pub fn of_recorded(netns: u32, sockets: &[Recorded], terms: &Terms) -> Result<Self> {
        let mut diag = enter(netns)?;
        // A report may name an MPTCP socket by its own cookie.
        let protocols = &[Protocol::Tcp, Protocol::Mptcp];
        let ports: BTreeSet<u16> = sockets.iter().map(|socket| socket.local.port()).collect();
        let filter = if ports.contains(&0) {
            Filter::all()
        } else {
            Filter::all().local_ports(ports)
        };
        let seen = match &mut diag {
            Some(diag) => look(diag, protocols, &filter)?,
            None => Look::new(),
        };
        let rule = terms.rule(&seen);
        let plan = |socket: &Recorded| {
            let Some(cookie) = socket.cookie else {
                return Removal::unseen(socket, Action::Skipped, Some(Reason::NoCookie));
            };
            if diag.is_none() {
                return Removal::unseen(socket, Action::Refused, Some(Reason::NetnsUnreachable));
            }
            let gone = Removal::unseen(socket, Action::Gone, None);
            match seen.get(&cookie).filter(|sighting| gone.is(sighting)) {
                Some(sighting) => Removal::plan(netns, sighting, &rule, &terms.powers),
                None => gone,
            }
        };
        let removals = sockets.iter().map(plan).collect();
        Ok(Self {
            diag,
            protocols,
            filter,
            seen,
            removals,
        })
    }

    /// Inodes of the sockets whose holders are to be named.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        let own = self.removals.iter().filter_map(|removal| self.seen(removal));
        let beside = self.beside_what_sends().into_values().flatten();
        let inodes = own.map(|sighting| sighting.inode).chain(beside);
        inodes.filter(|inode| *inode != 0)
    }

    /// Notes who has them, by their inodes.
    pub fn name_holders(&mut self, holders: &HashMap<u64, Vec<Holder>>) {
        let beside = self.beside_what_sends();
        let mut removals = std::mem::take(&mut self.removals);
        for removal in &mut removals {
            let Some(sighting) = self.seen(removal) else {
                continue;
            };
            removal.holders = holders.get(&sighting.inode).cloned().unwrap_or_default();
            if sighting.still_sends() {
                let inodes = beside.get(&sighting.local.port()).into_iter().flatten();
                let mut named: Vec<Holder> = inodes
                    .filter_map(|inode| holders.get(inode))
                    .flatten()
                    .cloned()
                    .collect();
                named.sort_unstable_by_key(|holder| (holder.pid, holder.fd));
                named.dedup_by_key(|holder| holder.pid);
                removal.port_holders = named;
            }
        }
        self.removals = removals;
    }

    /// The inodes of the living sockets on each port of which something still sends.
    fn beside_what_sends(&self) -> HashMap<u16, Vec<u64>> {
        let seen = self.removals.iter().filter_map(|removal| self.seen(removal));
        let sends = seen.filter(|sighting| sighting.still_sends() && sighting.inode == 0);
        let mut beside: HashMap<u16, Vec<u64>> = sends
            .map(|sighting| (sighting.local.port(), Vec::new()))
            .collect();
        for living in self.seen.values().filter(|sighting| sighting.is_living()) {
            if let Some(inodes) = beside.get_mut(&living.local.port()) {
                inodes.push(living.inode);
            }
        }
        beside
    }

    fn seen(&self, removal: &Removal) -> Option<&Sighting> {
        find(&self.seen, removal)
    }

    /// Destroys what is planned and still may be, and looks what became of it.
    pub fn destroy(&mut self, terms: &Terms) -> Result<(), SockDiagError> {
        let is_planned = |removal: &&mut Removal| removal.action == Action::WouldDestroy;
        let Some(diag) = &mut self.diag else {
            return Ok(());
        };
        let mut planned: Vec<&mut Removal> = self.removals.iter_mut().filter(is_planned).collect();
        if planned.is_empty() {
            return Ok(());
        }
        let before = look(diag, self.protocols, &self.filter)?;
        let rule = terms.rule(&before);
        // A peer that comes back between this look and the request loses its data. So there is no other request between.
        planned.sort_by_key(|removal| !find(&before, removal).is_some_and(Sighting::still_sends));
        let mut attempts = Vec::with_capacity(planned.len());
        for removal in &mut planned {
            let seen = find(&before, removal);
            if let Some(seen) = seen {
                removal.update(seen);
            }
            attempts.push(match seen.map(|seen| Removable::judge(seen, &rule)) {
                None => Attempt::Gone,
                Some(Err(reason)) => Attempt::LeftAlone(reason),
                Some(Ok(leftover)) => ask(diag, &leftover, &terms.powers)?,
            });
        }
        let after = look(diag, self.protocols, &self.filter)?;
        for (removal, attempt) in planned.iter_mut().zip(attempts) {
            removal.conclude(attempt, find(&after, removal));
        }
        Ok(())
    }
}

/// `None` when nobody has the namespace, or a privilege is missing.
fn enter(netns: u32) -> io::Result<Option<SockDiag>> {
    let entered = Netns::find(netns).and_then(|found| {
        found
            .map(|namespace| SockDiag::open(Some(namespace.as_fd())))
            .transpose()
    });
    match entered {
        Ok(diag) => Ok(diag),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn look(diag: &mut SockDiag, protocols: &[Protocol], filter: &Filter) -> Result<Look, SockDiagError> {
    let mut seen = Look::new();
    for protocol in protocols {
        for family in [Family::Ipv4, Family::Ipv6] {
            match diag.dump(*protocol, family, filter) {
                // A kernel without MPTCP has no such sockets.
                Err(SockDiagError::NoHandler(Protocol::Mptcp)) => {}
                rows => seen.extend(rows?.into_iter().map(|sighting| (sighting.cookie, sighting))),
            }
        }
    }
    Ok(seen)
}

/// The socket in a look.
fn find<'a>(look: &'a Look, removal: &Removal) -> Option<&'a Sighting> {
    look.get(&removal.cookie?).filter(|sighting| removal.is(sighting))
}

/// Asks the kernel to destroy what a look just showed, if it can.
fn ask(diag: &mut SockDiag, leftover: &Removable, powers: &Powers) -> Result<Attempt, SockDiagError> {
    if let Err(reason) = powers.allow(leftover) {
        return Ok(Attempt::Refused(reason));
    }
    Ok(match diag.destroy(leftover) {
        Ok(()) => Attempt::Done,
        Err(DestroyError::Gone) => Attempt::Gone,
        Err(DestroyError::Unsupported) if leftover.is_mini() => Attempt::Refused(Reason::TimeWaitUnsupported),
        Err(DestroyError::Unsupported) => Attempt::Refused(Reason::Unsupported),
        Err(DestroyError::NotPermitted) => Attempt::Refused(Reason::NotPermitted),
        Err(DestroyError::Refused(_)) => Attempt::Refused(Reason::Refused),
        Err(DestroyError::SockDiag(error)) => return Err(error),
    })
}
