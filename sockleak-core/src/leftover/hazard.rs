//! What it costs to destroy a leftover before the kernel frees it.

use std::net::SocketAddr;

use serde::Serialize;

use crate::observed::{Sighting, State};

/// The cost of one destruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hazard {
    pub danger: Danger,
    /// Bytes that the peer has not acknowledged, without the FIN. They were sent or waited to be.
    pub lost_bytes: u32,
}

/// The worst that can come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "hazard"))]
pub enum Danger {
    /// Both sides have closed, and no segment of the connection can be on its way: the peer is this machine.
    None,
    /// What TIME_WAIT is there for (RFC 1337): a delayed segment may end a new connection between the same two
    /// addresses and ports, or be taken for its data. Without such a connection nothing happens.
    OldDuplicates,
    /// The peer gets an RST: at once, or when it sends or closes.
    PeerReset,
    /// The peer gets nothing: it waits for the end of the connection until its own timeout, if it has one.
    PeerLeftWaiting,
    /// Bytes that the process had sent never arrive, beside what happens to the peer.
    DataLost,
}

impl Hazard {
    /// What the end of such a socket means. `tcp_abort` (net/ipv4/tcp.c) sends an RST in FIN_WAIT1 and in a
    /// FIN_WAIT2 that is a full socket (`tcp_need_reset`), and nothing for any other leftover.
    #[must_use]
    pub fn of(leftover: &Sighting) -> Self {
        let lost_bytes = match leftover.state {
            // The FIN is behind the data and as unacknowledged.
            State::FinWait1 | State::Closing | State::LastAck => leftover.send_queue.saturating_sub(1),
            _ => 0,
        };
        let danger = match leftover.state {
            _ if lost_bytes > 0 => Danger::DataLost,
            State::TimeWait if is_own(leftover.local, leftover.remote) => Danger::None,
            State::TimeWait => Danger::OldDuplicates,
            State::Closing | State::LastAck => Danger::PeerLeftWaiting,
            _ => Danger::PeerReset,
        };
        Self { danger, lost_bytes }
    }
}

/// The peer is this machine, as far as its address alone tells.
fn is_own(local: SocketAddr, remote: SocketAddr) -> bool {
    local.ip() == remote.ip() || remote.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{addr, sighting, socket};

    fn hazard(state: State, send_queue: u32, remote: &str) -> (Danger, u32) {
        let hazard = Hazard::of(&Sighting {
            send_queue,
            local: addr("10.0.0.7:8080"),
            remote: addr(remote),
            ..sighting(&socket(State::Established).build(), state)
        });
        (hazard.danger, hazard.lost_bytes)
    }

    #[test]
    fn time_wait_matters_between_machines() {
        for own in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.9]:1", "10.0.0.7:1"] {
            assert_eq!(hazard(State::TimeWait, 0, own), (Danger::None, 0), "{own}");
        }
        for other in ["10.0.0.8:1", "[2001:db8::1]:1", "[::ffff:10.0.0.8]:1"] {
            assert_eq!(
                hazard(State::TimeWait, 0, other),
                (Danger::OldDuplicates, 0),
                "{other}"
            );
        }
    }

    #[test]
    fn the_fin_is_no_lost_byte() {
        let peer = "127.0.0.1:1";
        assert_eq!(hazard(State::FinWait1, 1, peer), (Danger::PeerReset, 0));
        assert_eq!(hazard(State::FinWait1, 501, peer), (Danger::DataLost, 500));
        assert_eq!(hazard(State::LastAck, 1, peer), (Danger::PeerLeftWaiting, 0));
        assert_eq!(hazard(State::LastAck, 3, peer), (Danger::DataLost, 2));
        assert_eq!(hazard(State::Closing, 1, peer), (Danger::PeerLeftWaiting, 0));
        assert_eq!(hazard(State::FinWait2, 0, peer), (Danger::PeerReset, 0));
    }
}
