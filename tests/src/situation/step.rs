//! A socket of a situation: how it comes by the port, and what becomes of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Binding;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub binding: Binding,
    pub mptcp: bool,
    pub origin: Origin,
    pub state: State,
    /// A process has it in the end, where its state leaves the choice.
    pub held: bool,
    /// The other end has an IPv4 address, where an IPv6 socket takes both.
    pub through_ipv4: bool,
    /// SO_REUSEADDR and SO_REUSEPORT that it is given when it has the port.
    pub later: Option<(bool, bool)>,
    pub repair: Option<Repair>,
}

/// How the socket comes by the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is bound itself.
    Bound,
    /// A listener is bound, and it is what that one accepts.
    Accepted { listener_stays: bool },
    /// `connect()` chooses the port.
    Chosen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// It listens, and is closed.
    Gone,
    Bound,
    Listen,
    SynSent,
    /// TCP_FASTOPEN makes the socket before the handshake is complete.
    SynRecv,
    Established,
    CloseWait,
    FinWait1,
    FinWait2,
    Closing,
    LastAck,
    TimeWait,
    /// The peer sent an RST.
    Reset,
    /// `connect(AF_UNSPEC)` took its peer away.
    Disconnected,
}

/// TCP_REPAIR is on while it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Stays,
    Ends,
}

impl Step {
    /// A socket that is bound, listens, and is closed: what [`Binding::try_at`] leaves where it succeeds.
    #[must_use]
    pub fn gone(binding: Binding) -> Self {
        Self {
            binding,
            mptcp: false,
            origin: Origin::Bound,
            state: State::Gone,
            held: false,
            through_ipv4: false,
            later: None,
            repair: None,
        }
    }

    /// Which address of the own namespace its peer has.
    #[must_use]
    pub fn peer_address(&self) -> IpAddr {
        match self.binding.address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) if self.through_ipv4 && !self.binding.v6only => {
                Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()
            }
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.to_ipv4_mapped() == Some(Ipv4Addr::UNSPECIFIED) => {
                Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()
            }
            address => address,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.mptcp { "MPTCP" } else { "TCP" }, self.binding)?;
        if self.through_ipv4 {
            f.write_str(", reached by IPv4")?;
        }
        match self.repair {
            Some(Repair::Stays) => f.write_str(", in TCP_REPAIR")?,
            Some(Repair::Ends) => f.write_str(", bound in TCP_REPAIR")?,
            None => {}
        }
        if let Some((reuseaddr, reuseport)) = self.later {
            write!(f, ", then reuseaddr={reuseaddr} reuseport={reuseport}")?;
        }
        match self.origin {
            Origin::Bound => {}
            Origin::Accepted { listener_stays: true } => f.write_str(", accepted")?,
            Origin::Accepted {
                listener_stays: false,
            } => f.write_str(", accepted, its listener closed")?,
            Origin::Chosen => f.write_str(", port chosen by connect()")?,
        }
        write!(f, ": {:?}", self.state)?;
        if self.held { f.write_str(", held") } else { Ok(()) }
    }
}
