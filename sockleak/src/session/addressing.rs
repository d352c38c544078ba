//! What a network namespace tells of the addresses and devices that a restart would name.

use std::collections::BTreeSet;

use sockleak_core::port::{Addressing, Endpoint, LocalAddress};
use sockleak_kernel::netns::Netns;
use sockleak_kernel::{devices, trial_bind};

/// Tries the addresses, and names their devices and those that sockets are `bound` to. What cannot be read is a warning,
/// and nothing is then known of it.
pub fn read(
    namespace: &Netns,
    addresses: &BTreeSet<LocalAddress>,
    bound: impl Iterator<Item = u32>,
) -> Addressing {
    let asked = addresses.iter().map(|address| address.device);
    let indices: BTreeSet<u32> = asked.chain(bound).collect();
    let devices = indices
        .into_iter()
        .filter(|index| *index != 0)
        .filter_map(|index| {
            let device = devices::by_index(namespace, index);
            device
                .inspect_err(|error| log::warn!("device {index} has no name: {error}"))
                .ok()?
        });
    let refusals = trial_bind::refusals(namespace, addresses.iter().copied());
    Addressing {
        devices: devices.collect(),
        refusals: refusals
            .inspect_err(|error| log::warn!("no address could be tried: {error}"))
            .unwrap_or_default(),
    }
}

/// What there is to ask about an endpoint; nothing about a wildcard, which every namespace has.
pub fn question(endpoint: &Endpoint) -> Option<LocalAddress> {
    let is_any = endpoint.address.is_unspecified() && endpoint.device == 0;
    (!is_any).then(|| endpoint.local_address())
}
