//! A verdict that is not what `bind()` says, and how little it takes to see it again.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use sockleak_tests::limit::scaled;
use sockleak_tests::situation::{Answers, Binding, Device, Made, Origin, Place, State, Step};

use super::product::Product;

/// Sockets on a port, a socket that is asked for, and what is said to it.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub steps: Vec<Step>,
    pub asked: Binding,
    /// The port is one of those that take a right.
    pub low: bool,
    pub said: Answers,
    pub real: Answers,
}

/// Where mismatches are seen again.
pub struct Laboratory<'a> {
    pub product: &'a mut Product,
    pub places: &'a [Place],
    /// Which of the places.
    pub place: usize,
}

impl Laboratory<'_> {
    /// Makes the same sockets on another port, and asks both again: whether they differ, and the owners that sockleak saw.
    pub fn sees_again(&mut self, mismatch: &Mismatch) -> Option<(Answers, Answers, Vec<String>)> {
        let place = &self.places[self.place];
        place.enter();
        let port = place.unused_port(mismatch.low)?;
        let kept = make(&mismatch.steps, place, port);
        settle();
        let look = self.product.look(self.places, &BTreeSet::from([port]));
        let asked = mismatch.asked;
        let said = look.answers(place, port, &[asked]).pop().flatten();
        let real = asked.try_at(port);
        drop(kept);
        said.filter(|said| *said != real)
            .map(|said| (said, real, look.owners(place, port)))
    }

    /// Leaves out and simplifies whatever the mismatch does not need, and goes to the place where it takes the least.
    pub fn shrink(&mut self, mismatch: Mismatch) -> Mismatch {
        let mut smallest = mismatch;
        // The first place has no address that it has not.
        let place = mem::replace(&mut self.place, 0);
        if !self.is_same(&smallest) {
            self.place = place;
        }
        loop {
            let simpler = simpler(&smallest)
                .into_iter()
                .find(|simpler| self.is_same(simpler));
            match simpler {
                Some(simpler) => smallest = simpler,
                None => return smallest,
            }
        }
    }

    fn is_same(&mut self, mismatch: &Mismatch) -> bool {
        let seen = self.sees_again(mismatch);
        seen.is_some_and(|(said, real, _)| (said, real) == (mismatch.said, mismatch.real))
    }
}

/// Makes the sockets one after the other. What is refused has done its part.
pub fn make(steps: &[Step], place: &Place, port: u16) -> Vec<Made> {
    steps
        .iter()
        .filter_map(|step| step.make(place, port).ok())
        .collect()
}

/// Lets the last segments arrive, and the kernel's workers close what is MPTCP.
pub fn settle() {
    thread::sleep(scaled(Duration::from_millis(4)));
}

/// The same with one thing less, the largest first.
fn simpler(mismatch: &Mismatch) -> Vec<Mismatch> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Mismatch)| {
        let mut changed = mismatch.clone();
        change(&mut changed);
        if !changed.is_like(mismatch) {
            all.push(changed);
        }
    };
    for index in 0..mismatch.steps.len() {
        add(&|changed| _ = changed.steps.remove(index));
    }
    for index in 0..mismatch.steps.len() {
        for state in [State::Bound, State::Listen, State::Established] {
            let is_simpler = mismatch.steps[index].state > state;
            add(&|changed| {
                if is_simpler {
                    changed.steps[index].state = state;
                    changed.steps[index].held = false;
                }
            });
        }
        add(&|changed| changed.steps[index].origin = Origin::Bound);
        add(&|changed| changed.steps[index].mptcp = false);
        add(&|changed| changed.steps[index].repair = None);
        add(&|changed| changed.steps[index].later = None);
        add(&|changed| changed.steps[index].held = false);
        add(&|changed| changed.steps[index].through_ipv4 = false);
        for change in simpler_binding(mismatch.steps[index].binding) {
            add(&|changed| changed.steps[index].binding = change);
        }
    }
    for change in simpler_binding(mismatch.asked) {
        add(&|changed| changed.asked = change);
    }
    add(&|changed| {
        changed.asked.user = 0;
        for step in &mut changed.steps {
            step.binding.user = 0;
        }
    });
    add(&|changed| changed.low = false);
    all
}

fn simpler_binding(binding: Binding) -> Vec<Binding> {
    let address = match binding.address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    vec![
        Binding {
            device: Device::None,
            ..binding
        },
        Binding { user: 0, ..binding },
        Binding {
            reuseaddr: false,
            ..binding
        },
        Binding {
            reuseport: false,
            ..binding
        },
        Binding {
            v6only: false,
            ..binding
        },
        Binding {
            freebind: false,
            ..binding
        },
        Binding {
            v6only: binding.v6only && address.is_ipv6(),
            address,
            ..binding
        },
    ]
}

impl Mismatch {
    fn is_like(&self, other: &Self) -> bool {
        (&self.steps, self.asked, self.low) == (&other.steps, other.asked, other.low)
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = if self.low { "a port below 1024" } else { "a port" };
        writeln!(f, "on {port}, one after the other:")?;
        for step in &self.steps {
            writeln!(f, "    {step}")?;
        }
        writeln!(f, "  then {}:", self.asked)?;
        writeln!(f, "    the kernel says {}", self.real)?;
        write!(f, "    sockleak says   {}", self.said)
    }
}
