//! What a network namespace tells of the addresses and devices that a `bind()` names, whatever has the port.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A local address as `bind()` looks at it before it looks at the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalAddress {
    /// A v4-mapped address is that of an IPv6 socket.
    pub address: IpAddr,
    /// IPV6_V6ONLY of an IPv6 socket.
    pub v6only: bool,
    /// Index of the device that the socket is bound to; 0 for none.
    pub device: u32,
}

/// Why `bind()` refuses an address on any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// EADDRNOTAVAIL: no device of the namespace has it, or not the one that is asked for.
    NotAvailable,
    /// ENODEV, before `bind()`: the device is not there.
    NoDevice,
    /// EINVAL: no socket of this kind may have it, such as a v4-mapped address with IPV6_V6ONLY, or a link-local one
    /// without a device.
    Invalid,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its number in the namespace, which is not 0.
    pub index: u32,
    pub name: String,
    /// Index of the VRF whose ports a socket has that is bound to it; 0 for none, and where all share theirs
    /// (`tcp_l3mdev_accept`).
    pub vrf: u32,
}

/// The addresses and devices that were asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressing {
    /// Addresses that a trial was refused; any other can be bound, or was not tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<(LocalAddress, Refusal)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
}

impl Addressing {
    /// Nothing was asked.
    pub const NOTHING: Self = Self {
        refusals: Vec::new(),
        devices: Vec::new(),
    };

    /// Nothing was asked, or nothing is to be told.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.refusals.is_empty() && self.devices.is_empty()
    }

    /// Why `bind()` refuses that address; `None` where it does not.
    #[must_use]
    pub fn refusal(&self, address: LocalAddress) -> Option<Refusal> {
        let mut refusals = self.refusals.iter();
        refusals
            .find(|(refused, _)| *refused == address)
            .map(|(_, refusal)| *refusal)
    }

    /// The device with that index.
    #[must_use]
    pub fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }
}
