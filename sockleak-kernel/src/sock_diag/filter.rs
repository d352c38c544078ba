//! Which sockets a dump is asked for.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use sockleak_core::observed::{Sighting, State};

/// How many port ranges the kernel is given. Its filter program is run for each socket of the
/// namespace, so a long one would cost more than the rows that it saves.
const MAX_RANGES: usize = 32;

/// Restricts a dump. The kernel does the bulk of it; [`Filter::matches`] does the rest.
#[derive(Clone, Debug)]
pub struct Filter {
    states: u32,
    ports: Option<(End, BTreeSet<u16>)>,
    tcp_info: bool,
}

/// Which of the two ports of a connection is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Local,
    Remote,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            states: State::ALL.iter().map(|state| 1 << *state as u32).sum(),
            ports: None,
            tcp_info: true,
        }
    }
}

impl Filter {
    /// Every socket.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only sockets in these states. TIME_WAIT and FIN_WAIT2 include the mini sockets of that substate.
    #[must_use]
    pub fn states(mut self, states: &[State]) -> Self {
        self.states = states.iter().fold(0, |set, state| set | 1 << *state as u32);
        self
    }

    /// Only sockets with these local ports, in host byte order.
    #[must_use]
    pub fn local_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = Some((End::Local, ports.into_iter().collect()));
        self
    }

    /// Only sockets with these remote ports, in host byte order, and any local one.
    #[must_use]
    pub fn remote_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = Some((End::Remote, ports.into_iter().collect()));
        self
    }

    /// What `struct tcp_info` tells is not needed. The kernel locks each socket to fill it in (`tcp_get_info`,
    /// net/ipv4/tcp.c), and it is most of a row.
    #[must_use]
    pub fn without_tcp_info(mut self) -> Self {
        self.tcp_info = false;
        self
    }

    /// No socket can match.
    pub(super) fn is_empty(&self) -> bool {
        self.states == 0 || self.ports.as_ref().is_some_and(|(_, ports)| ports.is_empty())
    }

    pub(super) fn state_bits(&self) -> u32 {
        self.states
    }

    pub(super) fn wants_tcp_info(&self) -> bool {
        self.tcp_info
    }

    /// Whether the row is one of those asked for.
    pub(super) fn matches(&self, row: &Sighting) -> bool {
        self.ports.as_ref().is_none_or(|(end, ports)| {
            let address = match end {
                End::Local => row.local,
                End::Remote => row.remote,
            };
            ports.contains(&address.port())
        })
    }

    /// The end that [`Filter::ranges`] are about.
    pub(super) fn end(&self) -> End {
        self.ports.as_ref().map_or(End::Local, |(end, _)| *end)
    }

    /// The ports as ranges for the kernel: exact where they are few, else with the narrowest gaps filled.
    /// Empty when every port is wanted.
    pub(super) fn ranges(&self) -> Vec<RangeInclusive<u16>> {
        let ports: Vec<u16> = self.ports.iter().flat_map(|(_, ports)| ports).copied().collect();
        let (Some(first), Some(last)) = (ports.first(), ports.last()) else {
            return Vec::new();
        };
        let mut gaps: Vec<(u16, u16)> = ports
            .windows(2)
            .map(|pair| (pair[0], pair[1]))
            .filter(|(below, above)| above - below > 1)
            .collect();
        gaps.sort_by_key(|(below, above)| std::cmp::Reverse(above - below));
        gaps.truncate(MAX_RANGES - 1);
        gaps.sort_unstable();
        let starts = std::iter::once(*first).chain(gaps.iter().map(|(_, above)| *above));
        let ends = gaps.iter().map(|(below, _)| *below).chain([*last]);
        starts.zip(ends).map(|(start, end)| start..=end).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_ports_are_asked_for_exactly() {
        let filter = Filter::all().local_ports([8080, 443, 80, 81, 80]);
        assert_eq!(filter.ranges(), [80..=81, 443..=443, 8080..=8080]);
        assert!(Filter::all().ranges().is_empty());
        assert!(!Filter::all().is_empty());
        assert!(Filter::all().local_ports([]).is_empty());
    }

    #[test]
    fn states_are_bits_of_the_kernels_numbers() {
        assert_eq!(
            Filter::all()
                .states(&[State::FinWait1, State::TimeWait])
                .state_bits(),
            0b101_0000
        );
        assert_eq!(Filter::all().state_bits(), 0x3ffe);
    }

    proptest! {
        #[test]
        fn ranges_cover_every_port_and_stay_few(ports in proptest::collection::btree_set(any::<u16>(), 0..300)) {
            let ranges = Filter::all().local_ports(ports.iter().copied()).ranges();
            prop_assert!(ranges.len() <= MAX_RANGES);
            prop_assert!(ranges.is_sorted_by(|a, b| a.end() < b.start()));
            for port in &ports {
                prop_assert!(ranges.iter().any(|range| range.contains(port)));
            }
            if ports.len() <= MAX_RANGES {
                let covered: usize = ranges.iter().map(ExactSizeIterator::len).sum();
                prop_assert_eq!(covered, ports.len());
            }
        }
    }
}
