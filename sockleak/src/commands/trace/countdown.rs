//! `--wait`: stays until every leftover is free.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use sockleak_core::observed::Family;
use sockleak_core::verdict::FreeRule;
use sockleak_kernel::netns::Netns;

use super::interrupts::Interrupts;
use super::looks::{self, Wanted};
use super::session::Session;
use crate::output::Status;

/// At least this often, since a peer can free a leftover at any moment.
const LOOK: Duration = Duration::from_secs(1);
/// At most this often, when many are due one after the other.
const LOOK_MIN: Duration = Duration::from_millis(100);

/// Looks until everything is free, or the user has seen enough.
///
/// # Errors
/// When sock_diag does not answer, or stdout cannot be written.
pub async fn drain(session: &mut Session<'_>, interrupts: &mut Interrupts) -> Result<()> {
    while !session.countdown.is_done() {
        tokio::select! {
            () = tokio::time::sleep(pause(session)) => look(session)?,
            _ = interrupts.next() => return Ok(()),
        }
    }
    Ok(())
}

/// Until the next leftover may be free, or it is time for another look.
pub fn pause(session: &Session<'_>) -> Duration {
    let now = Timestamp::now();
    session
        .countdown
        .next(now)
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok())
        .map_or(LOOK, |next| next.clamp(LOOK_MIN, LOOK))
}

/// Looks once at every leftover, and shows on a terminal how many there are.
///
/// # Errors
/// When sock_diag does not answer, or stdout cannot be written.
pub fn look(session: &mut Session<'_>) -> Result<()> {
    let mut wanted: HashMap<u32, Wanted> = HashMap::new();
    for follower in session.countdown.followers() {
        let wanted = wanted.entry(follower.netns).or_default();
        wanted.ports.insert(follower.local.port());
        let family = if follower.local.is_ipv6() {
            Family::Ipv6
        } else {
            Family::Ipv4
        };
        wanted.kinds.insert((follower.protocol, family));
    }
    for (inode, wanted) in wanted {
        // Opened for this look only: an open namespace would keep its TIME_WAITs alive.
        let known = session.netns_cookies.get(&inode).copied().flatten();
        let found = Netns::find(inode);
        let refused = found.as_ref().err().map(ToString::to_string);
        let namespace = found
            .ok()
            .flatten()
            .filter(|found| known.is_none() || found.cookie() == known);
        let mut snapshot = looks::look(inode, namespace.as_ref(), &wanted)?;
        snapshot.refused = snapshot.refused.or(refused);
        let look = session.countdown.look(&snapshot);
        if let (1.., Some(why)) = (look.out_of_sight, &snapshot.refused) {
            let number = look.out_of_sight;
            log::error!("when {number} leftovers in net:[{inode}] are free is not known any more: {why}");
        }
        session.output.moved(snapshot.time, &look.moved)?;
        session.output.freed(&look.freed)?;
    }
    show(session)
}

fn show(session: &mut Session<'_>) -> Result<()> {
    let (held, leftovers): (Vec<_>, Vec<_>) = session
        .countdown
        .followers()
        .partition(|follower| follower.freedom.rule == FreeRule::Holder);
    let status = Status::Draining {
        now: Timestamp::now(),
        leftovers: leftovers.len() as u64,
        held: held.len() as u64,
        last: session.countdown.last(),
    };
    session.output.status(&status)?;
    Ok(())
}
