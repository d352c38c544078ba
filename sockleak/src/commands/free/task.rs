//! The sockets of one network namespace.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;

use anyhow::Result;

use crate::kernel::netns::Netns;
use crate::kernel::sock_diag::{DestroyError, Filter, SockDiag, SockDiagError};
use crate::postmortem::{
    Action, Attempt, Family, Holder, Powers, Protocol, Reason, Recorded, Removable, Removal, Sighting,
};

/// What one look showed, by cookie. A socket that the kernel turned into a mini socket meanwhile may be told twice.
type Look = HashMap<u64, Sighting>;

pub struct Task {
    /// `None` where the namespace cannot be entered.
    diag: Option<SockDiag>,
    ports: BTreeSet<u16>,
    /// The look that the plan was made by.
    seen: Look,
    pub removals: Vec<Removal>,
}

impl Task {
    /// Plans for every socket with that local port in the caller's namespace.
    pub fn of_port(port: u16, powers: &Powers) -> Result<Self> {
        let netns = Netns::current()?.inode();
        let mut diag = SockDiag::open(None)?;
        let ports = BTreeSet::from([port]);
        let seen = look(&mut diag, &ports)?;
        let mut removals: Vec<Removal> = seen
            .values()
            .map(|sighting| Removal::plan(netns, sighting, powers))
            .collect();
        removals.sort_unstable_by_key(|removal| (removal.local, removal.remote, removal.cookie));
        Ok(Self {
            diag: Some(diag),
            ports,
            seen,
            removals,
        })
    }

    /// Plans for sockets of an earlier report. The inode of their namespace may be another's by now, and their
    /// addresses may be the restarted service's: the cookie decides.
    pub fn of_recorded(netns: u32, sockets: &[Recorded], powers: &Powers) -> Result<Self> {
        let mut diag = enter(netns)?;
        let ports = sockets.iter().map(|socket| socket.local.port()).collect();
        let seen = match &mut diag {
            Some(diag) => look(diag, &ports)?,
            None => Look::new(),
        };
        let plan = |socket: &Recorded| {
            let Some(cookie) = socket.cookie else {
                return Removal::unseen(socket, Action::Skipped, Some(Reason::NoCookie));
            };
            if diag.is_none() {
                return Removal::unseen(socket, Action::Refused, Some(Reason::NetnsUnreachable));
            }
            let gone = Removal::unseen(socket, Action::Gone, None);
            match seen.get(&cookie).filter(|sighting| gone.is(sighting)) {
                Some(sighting) => Removal::plan(netns, sighting, powers),
                None => gone,
            }
        };
        let removals = sockets.iter().map(plan).collect();
        Ok(Self {
            diag,
            ports,
            seen,
            removals,
        })
    }

    /// Inodes of the sockets that somebody has.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        let inodes = self.removals.iter().filter_map(|removal| self.inode(removal));
        inodes.filter(|inode| *inode != 0)
    }

    /// Notes who has them, by their inodes.
    pub fn name_holders(&mut self, holders: &HashMap<u64, Vec<Holder>>) {
        let mut removals = std::mem::take(&mut self.removals);
        for removal in &mut removals {
            let named = self.inode(removal).and_then(|inode| holders.get(&inode));
            removal.holders = named.cloned().unwrap_or_default();
        }
        self.removals = removals;
    }

    fn inode(&self, removal: &Removal) -> Option<u64> {
        self.seen.get(&removal.cookie?).map(|sighting| sighting.inode)
    }

    /// Destroys what is planned and still is what it was, and looks what became of it.
    pub fn destroy(&mut self, powers: &Powers) -> Result<(), SockDiagError> {
        let is_planned = |removal: &&mut Removal| removal.action == Action::WouldDestroy;
        let Some(diag) = &mut self.diag else {
            return Ok(());
        };
        let mut planned: Vec<&mut Removal> = self.removals.iter_mut().filter(is_planned).collect();
        if planned.is_empty() {
            return Ok(());
        }
        let before = look(diag, &self.ports)?;
        let attempts = planned
            .iter()
            .map(|removal| ask(diag, find(&before, removal), powers))
            .collect::<Result<Vec<Attempt>, _>>()?;
        let after = look(diag, &self.ports)?;
        for (removal, attempt) in planned.iter_mut().zip(attempts) {
            removal.conclude(attempt, find(&after, removal));
        }
        Ok(())
    }
}

/// `None` when nobody has the namespace, or a privilege is missing.
fn enter(netns: u32) -> io::Result<Option<SockDiag>> {
    let Some(namespace) = Netns::find(netns)? else {
        return Ok(None);
    };
    match SockDiag::open(Some(namespace.as_fd())) {
        Ok(diag) => Ok(Some(diag)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

fn look(diag: &mut SockDiag, ports: &BTreeSet<u16>) -> Result<Look, SockDiagError> {
    let filter = Filter::all().local_ports(ports.iter().copied());
    let mut seen = Look::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        for sighting in diag.dump(Protocol::Tcp, family, &filter)? {
            seen.insert(sighting.cookie, sighting);
        }
    }
    Ok(seen)
}

/// The socket in a look.
fn find<'a>(look: &'a Look, removal: &Removal) -> Option<&'a Sighting> {
    look.get(&removal.cookie?).filter(|sighting| removal.is(sighting))
}

/// Asks the kernel to destroy what a look just showed, if that is a leftover.
fn ask(diag: &mut SockDiag, seen: Option<&Sighting>, powers: &Powers) -> Result<Attempt, SockDiagError> {
    let Some(seen) = seen else {
        return Ok(Attempt::Gone);
    };
    let judged = Removable::judge(seen).and_then(|leftover| {
        powers.allow(&leftover)?;
        Ok(leftover)
    });
    let leftover = match judged {
        Ok(leftover) => leftover,
        Err(reason) => return Ok(Attempt::Refused(reason)),
    };
    Ok(match diag.destroy(&leftover) {
        Ok(()) => Attempt::Done,
        Err(DestroyError::Gone) => Attempt::Gone,
        Err(DestroyError::Unsupported) if leftover.is_mini() => Attempt::Refused(Reason::TimeWaitUnsupported),
        Err(DestroyError::Unsupported) => Attempt::Refused(Reason::Unsupported),
        Err(DestroyError::NotPermitted) => Attempt::Refused(Reason::NotPermitted),
        Err(DestroyError::Refused(_)) => Attempt::Refused(Reason::Refused),
        Err(DestroyError::SockDiag(error)) => return Err(error),
    })
}
