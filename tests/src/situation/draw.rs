//! Draws situations at random.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use super::binding::mapped_any_is_wildcard;
use super::place::{FLOATING4, FLOATING6, LAN4, LAN6, LINK_LOCAL};
use super::{Binding, Device, Origin, Random, Repair, State, Step, has_ipv6};

/// Root, and two who have no rights.
const USERS: [(usize, u32); 3] = [(70, 0), (20, 4711), (10, 4712)];
/// Sockets of a situation.
const MOST: [(usize, usize); 5] = [(5, 0), (45, 1), (25, 2), (15, 3), (10, 4)];

/// The first three may be MPTCP's or in TCP_REPAIR too.
const STATES: [(usize, State); 14] = [
    (20, State::Bound),
    (14, State::Listen),
    (18, State::Established),
    (4, State::Gone),
    (5, State::SynSent),
    (9, State::SynRecv),
    (6, State::CloseWait),
    (6, State::FinWait1),
    (12, State::FinWait2),
    (6, State::Closing),
    (6, State::LastAck),
    (8, State::TimeWait),
    (9, State::Reset),
    (6, State::Disconnected),
];

/// The sockets of a situation.
pub fn steps(random: &mut Random) -> Vec<Step> {
    (0..random.weighted(&MOST)).map(|_| step(random)).collect()
}

/// A socket that a restart makes. Half of them want what one of the sockets of the situation has, or what has it too.
pub fn asked(random: &mut Random, steps: &[Step]) -> Binding {
    let mut asked = binding(random);
    if !steps.is_empty() && random.percent(50) {
        let has = steps[random.below(steps.len())].binding;
        asked.address = alike(random, has.address);
        asked.v6only &= asked.address.is_ipv6();
    }
    if is_floating(asked.address) && random.percent(50) {
        asked.freebind = true;
    }
    asked
}

/// An address that has to do with that one: itself, in the other family, or any.
fn alike(random: &mut Random, address: IpAddr) -> IpAddr {
    let ipv4 = match address.to_canonical() {
        IpAddr::V4(ipv4) => ipv4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let mut choices: Vec<IpAddr> = vec![address, ipv4.into(), Ipv4Addr::UNSPECIFIED.into()];
    if has_ipv6() {
        let any = Ipv6Addr::UNSPECIFIED;
        choices.extend([mapped(ipv4), any].map(IpAddr::from));
    }
    random.pick(&choices)
}

fn step(random: &mut Random) -> Step {
    let state = random.weighted(&STATES);
    let binding = Binding {
        freebind: true,
        ..binding(random)
    };
    let mut step = Step {
        binding,
        mptcp: random.percent(35),
        origin: origin(random, state),
        state,
        held: random.percent(40),
        through_ipv4: random.percent(50),
        later: random
            .percent(20)
            .then(|| (random.percent(50), random.percent(50))),
        repair: random
            .percent(25)
            .then(|| random.pick(&[Repair::Stays, Repair::Ends])),
    };
    simplify(&mut step);
    step
}

fn origin(random: &mut Random, state: State) -> Origin {
    match state {
        State::Gone | State::Bound | State::Listen | State::SynSent | State::SynRecv => Origin::Bound,
        _ => random.weighted(&[
            (45, Origin::Bound),
            (15, Origin::Accepted { listener_stays: true }),
            (
                25,
                Origin::Accepted {
                    listener_stays: false,
                },
            ),
            (15, Origin::Chosen),
        ]),
    }
}

/// Takes out of a step what the kernel would refuse, or what has no meaning there.
fn simplify(step: &mut Step) {
    let is_any = step.binding.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    step.through_ipv4 &= is_any && !step.binding.v6only;
    // Loopback is the way to its own addresses alone, for a socket that is bound to it.
    let has_peer = !matches!(step.state, State::Gone | State::Bound | State::Listen);
    if has_peer && step.binding.device == Device::Veth {
        step.binding.device = Device::Loopback;
    }
    let is_remote = is_floating(step.binding.address) || step.binding.address == IpAddr::V6(LINK_LOCAL);
    if has_peer && is_remote {
        step.binding.address = match step.binding.address {
            IpAddr::V4(_) => LAN4.into(),
            IpAddr::V6(_) => LAN6.into(),
        };
    }
    let is_of_lan = [IpAddr::V4(LAN4), IpAddr::V6(LAN6)].contains(&step.binding.address.to_canonical());
    if has_peer && is_of_lan {
        step.binding.device = Device::None;
    }
    // Where nothing of it is floating, the option says nothing.
    step.binding.freebind &= is_floating(step.binding.address);
    step.held &= matches!(
        step.state,
        State::SynRecv | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck
    );
    let may_repair = matches!(step.state, State::Bound | State::Established) && step.origin == Origin::Bound;
    if !may_repair || step.mptcp {
        step.repair = None;
    }
    let of_mptcp = matches!(
        step.state,
        State::Gone | State::Bound | State::Listen | State::Established | State::TimeWait | State::FinWait2
    );
    step.mptcp &= of_mptcp && step.origin != Origin::Chosen;
}

fn binding(random: &mut Random) -> Binding {
    let address = address(random);
    Binding {
        address,
        v6only: address.is_ipv6() && random.percent(25),
        reuseaddr: random.percent(50),
        reuseport: random.percent(50),
        device: random.weighted(&[(80, Device::None), (12, Device::Loopback), (8, Device::Veth)]),
        user: random.weighted(&USERS),
        freebind: false,
    }
}

fn address(random: &mut Random) -> IpAddr {
    let ipv4 = random.weighted(&[
        (35, Ipv4Addr::UNSPECIFIED),
        (35, Ipv4Addr::LOCALHOST),
        (10, Ipv4Addr::new(127, 0, 0, 2)),
        (12, LAN4),
        (8, FLOATING4),
    ]);
    let ipv6 = random.weighted(&[
        (40, Ipv6Addr::UNSPECIFIED),
        (30, Ipv6Addr::LOCALHOST),
        (12, LAN6),
        (8, FLOATING6),
        (6, LINK_LOCAL),
    ]);
    if !has_ipv6() {
        return ipv4.into();
    }
    random.weighted(&[(45, ipv4.into()), (35, ipv6.into()), (20, mapped(ipv4).into())])
}

/// For 6.1, whose table of addresses is the first of its kind, `::ffff:0.0.0.0` is one address. Nobody binds to that.
fn mapped(ipv4: Ipv4Addr) -> Ipv6Addr {
    static IS_WILDCARD: OnceLock<bool> = OnceLock::new();
    if ipv4.is_unspecified() && !IS_WILDCARD.get_or_init(mapped_any_is_wildcard) {
        return Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    }
    ipv4.to_ipv6_mapped()
}

fn is_floating(address: IpAddr) -> bool {
    address == IpAddr::V6(FLOATING6) || address.to_canonical() == IpAddr::V4(FLOATING4)
}
