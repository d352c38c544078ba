use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;

fn owner(address: &str, state: State, reuse: Reuse) -> PortOwner {
    let address: IpAddr = address.parse().unwrap();
    PortOwner {
        sk: 1,
        netns: 1,
        protocol: Protocol::Tcp,
        family: if address.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        },
        local: SocketAddr::new(address, 8080),
        remote: None,
        state,
        mini: matches!(state, State::TimeWait | State::FinWait2),
        reuse: Some(reuse),
        v6only: (!address.is_ipv4()).then_some(false),
        device: 0,
        uid: Some(1000),
        cookie: None,
        inode: 0,
        bucket: None,
    }
}

fn request(address: &str, reuse: Reuse) -> Request {
    Request {
        address: address.parse().unwrap(),
        v6only: false,
        reuse,
        device: 0,
        vrf: 0,
        uid: Some(1000),
    }
}

fn answer(request: &Request, owner: PortOwner) -> Answer {
    in_the_way(request, &[owner]).listen
}

/// The measured table of who may have the port beside whom: leftovers, for each pair of options.
#[test]
fn leftovers_yield_where_both_sockets_have_the_option() {
    for state in [
        State::TimeWait,
        State::FinWait2,
        State::FinWait1,
        State::Established,
    ] {
        for old in Reuse::ALL {
            for new in Reuse::ALL {
                let free = (old.addr && new.addr) || (old.port && new.port);
                let expected = if free { Answer::Ok } else { Answer::InUse };
                let told = answer(&request("0.0.0.0", new), owner("127.0.0.1", state, old));
                assert_eq!(told, expected, "{state:?} {old:?} {new:?}");
            }
        }
    }
}

#[test]
fn a_listener_yields_to_reuseport_only() {
    for old in Reuse::ALL {
        for new in Reuse::ALL {
            let free = old.port && new.port;
            let expected = if free { Answer::Ok } else { Answer::InUse };
            let told = answer(&request("0.0.0.0", new), owner("0.0.0.0", State::Listen, old));
            assert_eq!(told, expected, "{old:?} {new:?}");
        }
    }
}

#[test]
fn reuseport_asks_for_the_uid_but_not_of_a_time_wait() {
    let both = Reuse::new(false, true);
    let mut asked = request("0.0.0.0", both);
    asked.uid = Some(5);
    let told = |state, uid| {
        let mut owner = owner("127.0.0.1", state, both);
        owner.uid = uid;
        answer(&asked, owner)
    };
    assert_eq!(told(State::FinWait1, Some(1000)), Answer::InUse);
    assert_eq!(told(State::FinWait1, Some(5)), Answer::Ok);
    assert_eq!(told(State::FinWait1, None), Answer::Unknown);
    assert_eq!(told(State::TimeWait, Some(1000)), Answer::Ok);
    asked.uid = None;
    assert_eq!(
        answer(&asked, owner("127.0.0.1", State::FinWait1, both)),
        Answer::Ok
    );
}

/// Before 6.17 an orphan has the uid 0 for this rule; the bucket still knows the dead process's.
#[test]
fn the_bucket_answers_before_the_owners() {
    let mut orphan = owner("127.0.0.1", State::FinWait1, Reuse::new(false, true));
    orphan.uid = Some(0);
    orphan.bucket = Some(Bucket {
        reuse_addr: false,
        reuse_port: true,
        reuse_port_at: None,
        uid: 1000,
        vrf: 0,
    });
    let asked = request("0.0.0.0", Reuse::new(false, true));
    assert_eq!(answer(&asked, orphan.clone()), Answer::Ok);
    let stranger = Request {
        uid: Some(5),
        ..asked
    };
    assert_eq!(answer(&stranger, orphan.clone()), Answer::InUse);
    orphan.bucket = Some(Bucket {
        reuse_addr: true,
        reuse_port: false,
        reuse_port_at: None,
        uid: 0,
        vrf: 0,
    });
    let tried = in_the_way(&request("0.0.0.0", Reuse::new(true, false)), &[orphan.clone()]);
    assert_eq!(
        (tried.bind, tried.listen),
        (Answer::Ok, Answer::InUse),
        "it has not the option itself"
    );
    assert_eq!(tried.blockers, [0]);
    let tried = in_the_way(&request("0.0.0.0", Reuse::new(true, true)), &[orphan]);
    assert_eq!((tried.bind, tried.listen), (Answer::Ok, Answer::Ok));
}

#[test]
fn one_address_is_v6only_by_itself() {
    let both = Reuse::new(false, true);
    let listener = owner("0.0.0.0", State::Listen, both);
    assert_eq!(answer(&request("::1", both), listener.clone()), Answer::Ok);
    assert_eq!(
        answer(&request("::", Reuse::default()), listener.clone()),
        Answer::InUse
    );
    assert_eq!(
        answer(&request("::ffff:127.0.0.1", Reuse::default()), listener),
        Answer::InUse
    );
}

#[test]
fn other_devices_and_vrfs_are_out_of_the_way() {
    let told = |has: u32, has_vrf: Option<u32>, asked: u32, vrf| {
        let mut listener = owner("0.0.0.0", State::Listen, Reuse::default());
        listener.device = has;
        listener.bucket = has_vrf.map(|vrf| Bucket {
            reuse_addr: true,
            reuse_port: true,
            reuse_port_at: None,
            uid: 1000,
            vrf,
        });
        let asked = Request {
            device: asked,
            vrf,
            ..request("0.0.0.0", Reuse::default())
        };
        answer(&asked, listener)
    };
    assert_eq!(told(2, Some(0), 3, 0), Answer::Ok);
    for (has, asked) in [(2, 2), (0, 2), (2, 0), (0, 0)] {
        assert_eq!(told(has, Some(0), asked, 0), Answer::InUse, "{has} {asked}");
        assert_eq!(told(has, None, asked, 0), Answer::InUse, "{has} {asked}");
        assert_eq!(told(has, Some(9), asked, 0), Answer::Ok, "{has} {asked}");
        assert_eq!(told(has, Some(9), asked, 9), Answer::InUse, "{has} {asked}");
    }
}

/// The strict mark holds for the address of the last one that was bound, of which a wildcard has all.
#[test]
fn a_shared_address_is_no_other() {
    let bind = |has: &str, has_v6only, asked: &str, v6only, uid| {
        let mut orphan = owner("127.0.0.1", State::FinWait1, Reuse::default());
        orphan.local = SocketAddr::new(has.parse().unwrap(), 8080);
        orphan.bucket = Some(Bucket {
            reuse_addr: false,
            reuse_port: false,
            reuse_port_at: Some(SharedAddress {
                address: has.parse().unwrap(),
                v6only: has_v6only,
            }),
            uid: 1000,
            vrf: 0,
        });
        let asked = Request {
            v6only,
            uid: Some(uid),
            ..request(asked, Reuse::new(false, true))
        };
        shares_port(&asked, &orphan.bucket.expect("it has one"))
    };
    for (has, has_v6only, asked, v6only, expected) in [
        ("127.0.0.1", false, "127.0.0.1", false, true),
        ("127.0.0.1", false, "0.0.0.0", false, false),
        ("127.0.0.1", false, "127.0.0.2", false, false),
        ("127.0.0.1", false, "::ffff:127.0.0.1", false, true),
        ("0.0.0.0", false, "127.0.0.1", false, true),
        ("::", false, "127.0.0.1", false, true),
        ("::", true, "127.0.0.1", false, false),
        ("::", true, "::1", false, true),
        ("::", true, "::", true, true),
        ("::1", false, "::1", true, true),
        ("::1", false, "::", false, false),
        ("::1", false, "127.0.0.1", false, false),
        ("::ffff:127.0.0.1", false, "127.0.0.1", false, true),
        ("::ffff:127.0.0.1", false, "::ffff:127.0.0.2", false, false),
    ] {
        assert_eq!(
            bind(has, has_v6only, asked, v6only, 1000),
            expected,
            "{has} {asked}"
        );
        assert!(!bind(has, has_v6only, asked, v6only, 0), "another user");
    }
}

#[test]
fn what_is_not_known_of_an_owner_is_said() {
    let told = |state, new| {
        let mut owner = owner("127.0.0.1", state, Reuse::default());
        owner.reuse = None;
        answer(&request("0.0.0.0", new), owner)
    };
    assert_eq!(told(State::TimeWait, Reuse::new(false, false)), Answer::InUse);
    assert_eq!(told(State::TimeWait, Reuse::new(true, false)), Answer::Unknown);
    assert_eq!(told(State::Listen, Reuse::new(true, false)), Answer::InUse);
    assert_eq!(told(State::Listen, Reuse::new(true, true)), Answer::Unknown);
    let certain = owner("127.0.0.1", State::Listen, Reuse::default());
    let mut unknown = owner("127.0.0.1", State::TimeWait, Reuse::default());
    unknown.reuse = None;
    let owners = [unknown, certain];
    let tried = in_the_way(&request("0.0.0.0", Reuse::new(true, false)), &owners);
    assert_eq!((tried.bind, tried.blockers.len()), (Answer::InUse, 2));
}

/// The measured table of addresses: a leftover, and the addresses that it takes.
#[test]
fn the_leftovers_own_address_decides() {
    let conflicts = |has: &str, old_v6only: bool, asked: &str, v6only: bool| {
        let mut owner = owner(has, State::TimeWait, Reuse::default());
        owner.v6only = Some(old_v6only);
        let mut asked = request(asked, Reuse::default());
        asked.v6only = v6only;
        answer(&asked, owner) == Answer::InUse
    };
    for has in ["127.0.0.1", "::ffff:127.0.0.1"] {
        assert!(conflicts(has, false, "0.0.0.0", false), "{has}");
        assert!(conflicts(has, false, "127.0.0.1", false), "{has}");
        assert!(!conflicts(has, false, "10.1.1.1", false), "{has}");
        assert!(conflicts(has, false, "::", false), "{has}");
        assert!(!conflicts(has, false, "::", true), "{has}");
        assert!(!conflicts(has, false, "::1", false), "{has}");
        assert!(conflicts(has, false, "::ffff:127.0.0.1", false), "{has}");
        assert!(!conflicts(has, false, "::ffff:10.1.1.1", false), "{has}");
    }
    for v6only in [false, true] {
        assert!(conflicts("::1", v6only, "::", false));
        assert!(conflicts("::1", v6only, "::", true));
        assert!(conflicts("::1", v6only, "::1", false));
        assert!(!conflicts("::1", v6only, "127.0.0.1", false));
        assert!(!conflicts("::1", v6only, "::ffff:127.0.0.1", false));
    }
    // The IPv4 address that the IPv6 socket has besides meets the wildcard.
    assert!(conflicts("::1", false, "0.0.0.0", false));
    assert!(!conflicts("::1", true, "0.0.0.0", false));
    let mut unseen = owner("::1", State::TimeWait, Reuse::default());
    unseen.v6only = None;
    assert_eq!(
        answer(&request("0.0.0.0", Reuse::default()), unseen.clone()),
        Answer::Unknown
    );
    assert_eq!(answer(&request("::", Reuse::default()), unseen), Answer::InUse);
}

#[test]
fn a_wildcard_listener_takes_every_address_of_its_families() {
    let conflicts = |has: &str, old_v6only: bool, asked: &str| {
        let mut owner = owner(has, State::Listen, Reuse::default());
        owner.v6only = Some(old_v6only);
        answer(&request(asked, Reuse::default()), owner) == Answer::InUse
    };
    for asked in ["0.0.0.0", "10.1.1.1", "::", "::ffff:10.1.1.1"] {
        assert!(conflicts("0.0.0.0", false, asked), "{asked}");
        assert!(conflicts("::", false, asked), "{asked}");
    }
    assert!(!conflicts("0.0.0.0", false, "::1"));
    assert!(conflicts("::", true, "::1"));
    for asked in ["0.0.0.0", "10.1.1.1", "::ffff:10.1.1.1"] {
        assert!(!conflicts("::", true, asked), "{asked}");
    }
}

fn address() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "0.0.0.0",
        "127.0.0.1",
        "10.1.1.1",
        "::",
        "::1",
        "fe80::1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
    ])
}

proptest! {
    /// More options never make a bind() fail that succeeded without them, and more owners never make one succeed.
    #[test]
    fn options_only_help_and_owners_only_hinder(
        owners in prop::collection::vec((address(), 0_usize..12, 0_usize..4, any::<bool>()), 0..5),
        asked in address(),
        v6only: bool,
    ) {
        let owners: Vec<PortOwner> = owners
            .into_iter()
            .map(|(address, state, reuse, v6only)| {
                let mut owner = owner(address, State::ALL[state % State::ALL.len()], Reuse::ALL[reuse]);
                owner.v6only = (owner.family == Family::Ipv6).then_some(v6only);
                owner
            })
            .collect();
        let told = |reuse, owners: &[PortOwner]| {
            let request = Request { v6only, ..request(asked, reuse) };
            in_the_way(&request, owners).bind
        };
        let none = told(Reuse::default(), &owners);
        for reuse in Reuse::ALL {
            let with = told(reuse, &owners);
            prop_assert!(none != Answer::Ok || with == Answer::Ok);
            if let Some((_, fewer)) = owners.split_first() {
                prop_assert!(with != Answer::Ok || told(reuse, fewer) == Answer::Ok);
            }
        }
    }
}
