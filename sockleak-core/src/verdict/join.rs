//! Which socket of a dump is which socket of the process.
//!
//! A dump of a network namespace holds everybody's sockets: on loopback also the other end of each connection,
//! and soon the restarted service on the same addresses. A cookie or an inode decides where both sides have
//! one; addresses decide only where neither contradicts. The other end has the addresses swapped, so it
//! never matches.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::observed::{Protocol, Sighting, Snapshot, Socket, State, Timer};

/// What a look at its namespace said about a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sight<'a> {
    /// There it is.
    Seen(&'a Snapshot, &'a Sighting),
    /// The namespace was looked into, and it is not there.
    Gone,
    /// The namespace is not there any more.
    Unreachable,
    /// The namespace may be there, and may not be looked into.
    Refused,
}

/// Finds each socket in the snapshots; the answers are in the order of the sockets. A sighting is given to
/// one socket at most. Linear in the number of sockets and sightings.
pub(crate) fn join<'a>(sockets: &[&Socket], snapshots: &'a [Snapshot]) -> Vec<Sight<'a>> {
    let mut sights = vec![Sight::Unreachable; sockets.len()];
    for snapshot in snapshots {
        let here: Vec<usize> = (0..sockets.len())
            .filter(|&index| sockets[index].netns == snapshot.netns)
            .collect();
        let Some(sightings) = &snapshot.sightings else {
            if snapshot.refused.is_some() {
                here.iter().for_each(|&index| sights[index] = Sight::Refused);
            }
            continue;
        };
        for (&index, found) in here.iter().zip(find(sockets, &here, sightings)) {
            sights[index] = found.map_or(Sight::Gone, |sighting| Sight::Seen(snapshot, sighting));
        }
    }
    sights
}

/// The sightings of the sockets of one namespace.
fn find<'a>(sockets: &[&Socket], here: &[usize], sightings: &'a [Sighting]) -> Vec<Option<&'a Sighting>> {
    let mut found: Vec<Option<&Sighting>> = vec![None; here.len()];
    let mut claimed = vec![false; sightings.len()];

    let places = || here.iter().map(|&index| sockets[index]).enumerate();
    let cookies = Numbers::new(places().filter_map(|(place, socket)| Some((socket.cookie?, place))));
    // Another inode than its own contradicts no socket more than another cookie does.
    let without_cookie = places().filter(|(_, socket)| socket.cookie.is_none());
    let inodes = Numbers::new(without_cookie.filter_map(|(place, socket)| Some((socket.inode?, place))));
    for (sighting, claimed) in sightings.iter().zip(&mut claimed) {
        let place = cookies
            .find(sighting.cookie)
            .or_else(|| inodes.find(sighting.inode));
        let Some(place) = place else { continue };
        let socket = sockets[here[place]];
        if socket.protocol == sighting.protocol && !contradicts(socket, sighting) {
            // A dump is not atomic: what becomes a time-wait meanwhile is seen twice, and the later form holds.
            if found[place].is_none() || sighting.timer == Timer::TimeWait {
                found[place] = Some(sighting);
            }
            *claimed = true;
        }
    }

    let unclaimed = || {
        let all = sightings.iter().zip(&claimed);
        all.filter(|(_, claimed)| !**claimed)
            .map(|(sighting, _)| sighting)
    };
    // Most sockets that are left are found by now, and of most that are not found nothing is left.
    let wanted: HashSet<Tuple> = unclaimed().map(Tuple::of_sighting).collect();
    if wanted.is_empty() {
        return found;
    }
    let mut tuples: HashMap<Tuple, Vec<usize>> = HashMap::new();
    for (place, &index) in here.iter().enumerate() {
        let tuple = Tuple::of_socket(sockets[index]);
        if found[place].is_none() && sockets[index].local.port() != 0 && wanted.contains(&tuple) {
            tuples.entry(tuple).or_default().push(place);
        }
    }
    for sighting in unclaimed() {
        let candidates = tuples.get(&Tuple::of_sighting(sighting));
        let place = candidates.into_iter().flatten().copied().find(|&place| {
            let socket = sockets[here[place]];
            found[place].is_none() && (matches(socket, sighting) || is_subflow(socket, sighting))
        });
        if let Some(place) = place {
            found[place] = Some(sighting);
        }
    }
    found
}

/// Where the socket of a number is. A sorted list: half the memory of a map, and made once.
struct Numbers(Vec<(u64, u32)>);

impl Numbers {
    fn new(numbers: impl Iterator<Item = (u64, usize)>) -> Self {
        // No table has so many descriptors.
        let mut list: Vec<_> = numbers.map(|(number, place)| (number, place as u32)).collect();
        list.sort_unstable();
        Self(list)
    }

    /// The first one's place.
    fn find(&self, number: u64) -> Option<usize> {
        let first = self.0.partition_point(|(known, _)| *known < number);
        let (known, place) = self.0.get(first)?;
        (*known == number).then_some(*place as usize)
    }
}

/// Both have a cookie, or both an inode, and they differ. An orphan has no inode any more.
fn contradicts(socket: &Socket, sighting: &Sighting) -> bool {
    socket.cookie.is_some_and(|cookie| cookie != sighting.cookie)
        || socket
            .inode
            .is_some_and(|inode| sighting.inode != 0 && inode != sighting.inode)
}

/// The same kind of socket at the same addresses, and nothing speaks against it.
fn matches(socket: &Socket, sighting: &Sighting) -> bool {
    let listens = |state| state == State::Listen;
    socket.protocol == sighting.protocol
        && listens(socket.state_at_death) == listens(sighting.state)
        && !contradicts(socket, sighting)
}

/// The first subflow of an MPTCP socket has its addresses, but a cookie of its own and no file. Subflows that were
/// recorded are looked for by themselves.
fn is_subflow(socket: &Socket, sighting: &Sighting) -> bool {
    socket.protocol == Protocol::Mptcp
        && socket.subflows.is_empty()
        && !socket.subflows_complete
        && sighting.protocol == Protocol::Tcp
        && sighting.inode == 0
        && sighting.state != State::Listen
}

/// Addresses without the scope and flow label of IPv6, which sock_diag and the records tell differently.
#[derive(PartialEq, Eq, Hash)]
struct Tuple {
    local: (IpAddr, u16),
    remote: Option<(IpAddr, u16)>,
}

impl Tuple {
    fn of_socket(socket: &Socket) -> Self {
        Self::new(socket.local, socket.remote)
    }

    /// sock_diag gives sockets without a peer the unspecified address and port 0.
    fn of_sighting(sighting: &Sighting) -> Self {
        Self::new(
            sighting.local,
            Some(sighting.remote).filter(|remote| remote.port() != 0),
        )
    }

    fn new(local: SocketAddr, remote: Option<SocketAddr>) -> Self {
        Self {
            local: (local.ip(), local.port()),
            remote: remote.map(|remote| (remote.ip(), remote.port())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{addr, sighting, snapshot, socket};

    fn is_seen(socket: &Socket, sighting: Sighting) -> bool {
        matches!(
            join(&[socket], &[snapshot(vec![sighting])])[..],
            [Sight::Seen(..)]
        )
    }

    #[test]
    fn a_cookie_is_enough_and_a_tuple_without_cookie_too() {
        let known = socket(State::Established).build();
        assert!(is_seen(&known, sighting(&known, State::FinWait2)));
        let unknown = socket(State::Established)
            .with(|socket| socket.cookie = None)
            .build();
        assert!(is_seen(&unknown, sighting(&unknown, State::FinWait2)));
    }

    #[test]
    fn the_other_end_on_loopback_is_not_the_victims() {
        for cookie in [Some(7), None] {
            let ours = socket(State::Established)
                .with(|socket| socket.cookie = cookie)
                .build();
            let mut other = sighting(&ours, State::CloseWait);
            (other.local, other.remote) = (other.remote, other.local);
            other.cookie = 1000;
            other.inode = 71;
            assert!(!is_seen(&ours, other));
        }
    }

    #[test]
    fn the_restarted_service_is_not_the_dead_one() {
        let listener = socket(State::Listen).build();
        let mut restarted = sighting(&listener, State::Listen);
        restarted.cookie = 1001;
        restarted.inode = 71;
        assert!(!is_seen(&listener, restarted.clone()), "another cookie");
        let old_kernel = socket(State::Listen).with(|socket| socket.cookie = None).build();
        assert!(!is_seen(&old_kernel, restarted.clone()), "another inode");
        restarted.inode = 70;
        assert!(is_seen(&old_kernel, restarted), "the same inode");

        let connection = socket(State::Established).build();
        let mut reused = sighting(&connection, State::Established);
        reused.cookie = 1002;
        assert!(!is_seen(&connection, reused));
    }

    #[test]
    fn namespaces_are_apart() {
        let ours = socket(State::Established).build();
        let mut elsewhere = snapshot(vec![sighting(&ours, State::FinWait2)]);
        elsewhere.netns = 2;
        assert!(matches!(
            join(&[&ours], &[elsewhere.clone()])[..],
            [Sight::Unreachable]
        ));
        let mut closed = snapshot(Vec::new());
        closed.sightings = None;
        assert!(matches!(
            join(&[&ours], &[elsewhere, closed.clone()])[..],
            [Sight::Unreachable]
        ));
        closed.refused = Some("it needs CAP_SYS_ADMIN".to_owned());
        assert!(matches!(join(&[&ours], &[closed])[..], [Sight::Refused]));
    }

    #[test]
    fn what_is_seen_twice_is_the_time_wait() {
        let ours = socket(State::Established).build();
        let full = Sighting {
            timer: Timer::Retransmit,
            ..sighting(&ours, State::FinWait1)
        };
        let late = sighting(&ours, State::FinWait2);
        for both in [vec![full.clone(), late.clone()], vec![late.clone(), full.clone()]] {
            let snapshots = [snapshot(both)];
            let sights = join(&[&ours], &snapshots);
            assert!(matches!(sights[..], [Sight::Seen(_, seen)] if *seen == late));
        }
    }

    #[test]
    fn v4_mapped_addresses_stay_what_they_are() {
        let mapped = socket(State::Established)
            .with(|socket| {
                socket.cookie = None;
                socket.local = addr("[::ffff:127.0.0.1]:8080");
                socket.remote = Some(addr("[::ffff:127.0.0.1]:40310"));
            })
            .build();
        assert!(is_seen(&mapped, sighting(&mapped, State::FinWait2)));
        let mut v4 = sighting(&mapped, State::FinWait2);
        v4.local = addr("127.0.0.1:8080");
        v4.remote = addr("127.0.0.1:40310");
        assert!(!is_seen(&mapped, v4));
    }

    #[test]
    fn an_mptcp_socket_leaves_its_subflow() {
        let ours = socket(State::Established)
            .with(|socket| socket.protocol = Protocol::Mptcp)
            .build();
        let mut subflow = sighting(&ours, State::FinWait2);
        subflow.protocol = Protocol::Tcp;
        subflow.cookie = 1003;
        assert!(is_seen(&ours, subflow.clone()));
        subflow.inode = 99;
        assert!(!is_seen(&ours, subflow), "somebody has a file of it");
    }

    proptest! {
        /// Whatever else a dump holds, a sighting has one owner, and a known cookie is never overruled.
        #[test]
        fn claims_are_unique_and_never_contradict(
            ours in prop::collection::vec((0u16..6, prop::option::of(1u64..8)), 0..8),
            theirs in prop::collection::vec((0u16..6, 1u64..8, 0u64..3), 0..12),
        ) {
            let sockets: Vec<Socket> = ours.iter().map(|&(port, cookie)| {
                socket(State::Established).with(|socket| {
                    socket.cookie = cookie;
                    socket.inode = None;
                    socket.remote = Some(SocketAddr::new(socket.local.ip(), 40_000 + port));
                }).build()
            }).collect();
            let sightings = theirs.iter().map(|&(port, cookie, inode)| Sighting {
                cookie,
                inode,
                remote: SocketAddr::new(addr("127.0.0.1:1").ip(), 40_000 + port),
                ..sighting(&socket(State::Established).build(), State::FinWait2)
            }).collect();
            let snapshots = [snapshot(sightings)];
            let sights = join(&sockets.iter().collect::<Vec<_>>(), &snapshots);
            let mut owners = HashSet::new();
            for (socket, sight) in sockets.iter().zip(sights) {
                if let Sight::Seen(_, seen) = sight {
                    prop_assert!(owners.insert(std::ptr::from_ref(seen)));
                    prop_assert!(socket.cookie.is_none_or(|cookie| cookie == seen.cookie));
                }
            }
        }
    }
}
