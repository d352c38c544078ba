//! Which sockets may be destroyed, and what became of that.
//!
//! Only what no process can come back to: a socket that was closed by or with its process and that lingers in the
//! kernel. It never gets an owner again, and the kernel gives its cookie to no other socket. So what was
//! once seen to be such a leftover stays one, as long as the cookie is the same. Whether it may be destroyed can change
//! (`discard.rs`), and is judged again by the look right before.

use std::net::SocketAddr;

use serde::Serialize;

use crate::leftover::{DiscardRule, Hazard, Reason};
use crate::observed::{Protocol, Sighting, State, Timer};
use crate::verdict::{Holder, Outcome, Report, SocketReport};

/// A leftover that may be destroyed. Nothing else is ever given to the kernel for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removable(Sighting);

/// `INET_DIAG_NOCOOKIE` of include/uapi/linux/inet_diag.h: the kernel would compare none.
const NO_COOKIE: u64 = u64::MAX;

impl Removable {
    /// Judges what a dump showed.
    ///
    /// # Errors
    /// Why it must stay.
    pub fn judge(sighting: &Sighting, rule: &DiscardRule) -> Result<Self, Reason> {
        match sighting.state {
            State::Listen => return Err(Reason::Listener),
            // Its connection waits for its end in ESTABLISHED, without a file (`mptcp_close`, net/mptcp/protocol.c).
            _ if sighting.is_subflow || sighting.protocol == Protocol::Mptcp => return Err(Reason::Mptcp),
            State::Established | State::CloseWait | State::SynSent | State::SynRecv | State::NewSynRecv => {
                return Err(Reason::LiveConnection);
            }
            State::Close | State::BoundInactive => return Err(Reason::Bound),
            State::TimeWait | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => {}
        }
        if sighting.inode != 0 {
            return Err(Reason::Held);
        }
        if sighting.cookie == NO_COOKIE {
            return Err(Reason::NoCookie);
        }
        if sighting.still_sends() {
            rule.permit(sighting)?;
        }
        Ok(Self(sighting.clone()))
    }

    #[must_use]
    pub fn sighting(&self) -> &Sighting {
        &self.0
    }

    /// It is a time-wait mini socket, in either substate, and no full one.
    #[must_use]
    pub fn is_mini(&self) -> bool {
        self.0.timer == Timer::TimeWait
    }
}

/// What a trial showed of the kernel's way to destroy one kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Works,
    /// It is refused with EOPNOTSUPP.
    Unsupported,
    /// It is said to be done, and the socket is still there.
    Defective,
    /// There was no trial.
    Untried,
}

/// What the kernel can destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Powers {
    /// Time-wait mini sockets.
    pub time_wait: Power,
    /// Full sockets without an owner.
    pub orphan: Power,
}

impl Powers {
    /// Nothing was tried.
    pub const UNTRIED: Self = Self {
        time_wait: Power::Untried,
        orphan: Power::Untried,
    };

    /// Why it is better not to ask the kernel. An untried time-wait socket is no danger: a kernel that cannot do it
    /// refuses, and nothing has happened.
    ///
    /// # Errors
    /// The reason.
    pub fn allow(&self, leftover: &Removable) -> Result<(), Reason> {
        match (leftover.is_mini(), self.time_wait, self.orphan) {
            (true, Power::Unsupported | Power::Defective, _) => Err(Reason::TimeWaitUnsupported),
            (false, _, Power::Unsupported) => Err(Reason::Unsupported),
            (false, _, Power::Defective) => Err(Reason::OrphanDefect),
            (false, _, Power::Untried) => Err(Reason::OrphanUntried),
            _ => Ok(()),
        }
    }

    /// The kernel can destroy no leftover at all.
    #[must_use]
    pub fn is_powerless(&self) -> bool {
        let can = |power| matches!(power, Power::Works | Power::Untried);
        !can(self.time_wait) && !can(self.orphan)
    }
}

/// A socket as an earlier report names it. Nothing of it goes to the kernel: it is looked for in a new dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub netns: u32,
    /// Either port is 0 where the report names none.
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    pub cookie: Option<u64>,
}

impl Recorded {
    /// What a report says that is left: of the death, what was neither reset nor closed, and what the process had left
    /// while it lived.
    pub fn of(report: &Report) -> impl Iterator<Item = Self> {
        let left = |part: &&SocketReport| !matches!(part.outcome, Outcome::Closed | Outcome::Reset);
        let of_death = report
            .sockets
            .iter()
            .flat_map(listed)
            .filter(left)
            .map(|part| Self {
                netns: part.socket.netns,
                local: part.socket.local,
                remote: part.socket.remote,
                cookie: part.socket.cookie.or(part.seen_cookie),
            });
        of_death.chain(report.closed_alive.iter().map(|leftover| Self {
            netns: leftover.netns,
            local: leftover.local,
            remote: leftover.remote,
            cookie: Some(leftover.cookie),
        }))
    }
}

/// What sock_diag lists of an entry: itself, or the TCP sockets of an MPTCP socket in its place.
fn listed(report: &SocketReport) -> &[SocketReport] {
    match report.socket.protocol {
        // Where they were not looked at, one that has the same addresses may be what sock_diag lists.
        Protocol::Mptcp if report.socket.subflows_complete || !report.subflows.is_empty() => &report.subflows,
        Protocol::Tcp | Protocol::Mptcp => std::slice::from_ref(report),
    }
}

/// What became of one socket, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Inode of its network namespace.
    pub netns: u32,
    pub local: SocketAddr,
    /// `None` for what has no peer.
    pub remote: Option<SocketAddr>,
    pub cookie: Option<u64>,
    /// The last that sock_diag called it; `None` if it was gone before.
    pub state: Option<State>,
    pub action: Action,
    /// Why it was not destroyed.
    pub reason: Option<Reason>,
    /// What its end costs, or would; `None` for what is alive or gone.
    pub hazard: Option<Hazard>,
    pub holders: Vec<Holder>,
    /// Who has its local port, if it still sends: it may be their answer.
    pub port_holders: Vec<Holder>,
}

/// What the user asked to be rid of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What dead processes left on a port.
    Port,
    /// What a report names. Its process is dead, whoever has the port now.
    Report,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "action"))]
pub enum Action {
    WouldDestroy,
    Destroyed,
    /// Its own time was over, or something else has its addresses by now: nothing was touched.
    Gone,
    /// It is no leftover, or may be none.
    Skipped,
    /// It is a leftover that this kernel cannot, or does not, destroy.
    Refused,
    /// The kernel was asked, and it is still there.
    StillThere,
}

/// What the kernel said when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Done,
    /// No socket with these addresses has this cookie.
    Gone,
    /// The kernel was not asked: by the look right before it must stay.
    LeftAlone(Reason),
    Refused(Reason),
}

impl Removal {
    /// What is to be done with a socket that was seen.
    #[must_use]
    pub fn plan(netns: u32, sighting: &Sighting, rule: &DiscardRule, powers: &Powers) -> Self {
        let judged = Removable::judge(sighting, rule);
        let (action, reason) = match &judged {
            Err(reason) => (Action::Skipped, Some(*reason)),
            Ok(leftover) => match powers.allow(leftover) {
                Err(reason) => (Action::Refused, Some(reason)),
                Ok(()) => (Action::WouldDestroy, None),
            },
        };
        let is_known = matches!(reason, Some(Reason::PortInUse | Reason::Unacknowledged));
        let hazard = (judged.is_ok() || is_known).then(|| Hazard::of(sighting));
        Self {
            netns,
            local: sighting.local,
            remote: remote(sighting),
            cookie: Some(sighting.cookie),
            state: Some(sighting.state),
            action,
            reason,
            hazard,
            holders: Vec::new(),
            port_holders: Vec::new(),
        }
    }

    /// What is said of a recorded socket that a look did not show.
    #[must_use]
    pub fn unseen(recorded: &Recorded, action: Action, reason: Option<Reason>) -> Self {
        Self {
            netns: recorded.netns,
            local: recorded.local,
            remote: recorded.remote,
            cookie: recorded.cookie,
            state: None,
            action,
            reason,
            hazard: None,
            holders: Vec::new(),
            port_holders: Vec::new(),
        }
    }

    /// Something is left that the user had asked to be rid of. What is alive is no leftover, and of what still sends
    /// on a port that is in use nobody but a report knows that a dead process left it.
    #[must_use]
    pub fn is_left(&self, asked: Asked) -> bool {
        match (self.action, self.reason) {
            (Action::WouldDestroy | Action::Destroyed | Action::Gone, _) => false,
            (_, Some(Reason::Listener | Reason::LiveConnection | Reason::Bound | Reason::Held)) => false,
            (_, Some(Reason::PortInUse)) => asked == Asked::Report,
            (_, Some(Reason::Mptcp)) => self.holders.is_empty(),
            (Action::Skipped | Action::Refused | Action::StillThere, _) => true,
        }
    }

    /// It is that very socket.
    #[must_use]
    pub fn is(&self, sighting: &Sighting) -> bool {
        let is_same = |known: SocketAddr, seen: SocketAddr| {
            known.ip() == seen.ip() && (known.port() == 0 || known.port() == seen.port())
        };
        self.cookie == Some(sighting.cookie)
            && is_same(self.local, sighting.local)
            && match (self.remote, remote(sighting)) {
                (Some(known), Some(seen)) => is_same(known, seen),
                (known, seen) => known == seen,
            }
    }

    /// Takes over what a later look showed of it.
    pub fn update(&mut self, sighting: &Sighting) {
        self.state = Some(sighting.state);
        self.hazard = Some(Hazard::of(sighting));
    }

    /// What became of it, by the kernel's answer and by a look afterwards. `still` is what that showed of it.
    pub fn conclude(&mut self, attempt: Attempt, still: Option<&Sighting>) {
        (self.action, self.reason) = match (attempt, still) {
            (Attempt::Done, None) => (Action::Destroyed, None),
            (Attempt::Gone | Attempt::LeftAlone(_) | Attempt::Refused(_), None) => (Action::Gone, None),
            (Attempt::LeftAlone(reason), Some(_)) => (Action::Skipped, Some(reason)),
            (Attempt::Refused(reason), Some(_)) => (Action::Refused, Some(reason)),
            (Attempt::Done | Attempt::Gone, Some(_)) => (Action::StillThere, None),
        };
        if let Some(still) = still {
            self.state = Some(still.state);
        }
        if self.action == Action::Gone {
            self.hazard = None;
        }
    }
}

/// `None` for what has no peer.
fn remote(sighting: &Sighting) -> Option<SocketAddr> {
    Some(sighting.remote).filter(|remote| remote.port() != 0)
}

#[cfg(test)]
#[path = "removal_tests.rs"]
mod tests;
