//! SO_REUSEADDR, which both the old connections and the new listener must have.

use super::{Fact, Facts, Grounds, given, last_free, local_ports};
use crate::observed::Socket;

/// Without either option no later socket gets past it.
fn lacks_both(socket: &Socket) -> bool {
    !socket.reuseaddr && !socket.reuseport
}

pub(super) fn leftover_without_reuseaddr(facts: &Facts<'_>) -> Option<Grounds> {
    let blocks = |socket: &Socket| facts.is_accepted(socket) && lacks_both(socket);
    let left: Vec<_> = facts.leftovers().filter(|left| blocks(left.socket)).collect();
    let count = left.len() as u64;
    let evidence = vec![
        ("leftovers", Fact::Count(count)),
        ("ports", local_ports(left.iter().map(|left| left.socket))),
        ("free_at", last_free(left.iter().map(|left| left.freedom))),
    ];
    given(count, evidence)
}

pub(super) fn listener_without_reuseaddr(facts: &Facts<'_>) -> Option<Grounds> {
    let without = || facts.every_listener().filter(|socket| lacks_both(socket));
    let count = without().count() as u64;
    let evidence = vec![
        ("listeners", Fact::Count(count)),
        ("ports", local_ports(without())),
    ];
    given(count, evidence)
}
