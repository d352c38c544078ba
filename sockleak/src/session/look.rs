//! Looks at what was reported, until it is free.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use sockleak_core::leftover::{Countdown, NamespaceLook};
use sockleak_core::observed::Snapshot;
use sockleak_kernel::netns::Netns;

use super::snapshots::{self, Wanted};

/// At least this often, since a peer can free a leftover at any moment.
const LONGEST: Duration = Duration::from_secs(1);
/// At most this often, when many are due one after the other.
const SHORTEST: Duration = Duration::from_millis(100);

/// Until the next leftover may be free, or it is time for another look.
pub fn pause(countdown: &Countdown) -> Duration {
    let now = Timestamp::now();
    let until = countdown.next(now).map(|due| due.duration_since(now));
    until
        .and_then(|until| Duration::try_from(until).ok())
        .map_or(LONGEST, |until| until.clamp(SHORTEST, LONGEST))
}

/// Looks once at a namespace.
///
/// # Errors
/// When sock_diag is missing or broken.
pub fn at(look: &NamespaceLook) -> Result<Snapshot> {
    // It is opened for this look only: an open namespace would keep its TIME_WAITs alive.
    let found = Netns::find(look.netns);
    let refused = found.as_ref().err().map(ToString::to_string);
    let namespace = found
        .ok()
        .flatten()
        .filter(|found| look.cookie.is_none() || found.cookie() == look.cookie);
    let wanted = Wanted {
        ports: look.scope.ports.clone(),
        kinds: look.scope.kinds.clone(),
        ..Wanted::default()
    };
    let mut snapshot = snapshots::look(look.netns, namespace.as_ref(), &wanted)?;
    snapshot.refused = snapshot.refused.or(refused);
    snapshot.scope = Some(look.scope.clone());
    Ok(snapshot)
}
