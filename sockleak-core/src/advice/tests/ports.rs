//! The ports of outgoing connections.

use super::*;

/// A client with ten leftovers in a range of so many ports.
fn client(range: u16) -> Evidence {
    let sockets: Vec<Socket> = (40_000..40_010).map(|port| outgoing(port).build()).collect();
    let left: Vec<Sighting> = sockets
        .iter()
        .map(|socket| sighting(socket, State::TimeWait))
        .collect();
    let mut evidence = with(sockets, left.clone());
    evidence.snapshots[0].same_destination = Some(left.into());
    evidence.snapshots[0].local_ports = Some(LocalPorts {
        range: 40_000..=40_000 + range - 1,
        reserved: Vec::new(),
        ..local_ports()
    });
    evidence
}

#[test]
fn ephemeral_exhaustion() {
    let id = AdviceId::EphemeralExhaustion;
    let facts = grounds(client(10), id).expect("none is left");
    assert_eq!(
        facts[..3],
        [
            ("destinations", Fact::Count(1)),
            ("leftovers", Fact::Count(10)),
            ("available_ports", Fact::Count(0)),
        ]
    );
    assert!(is_said(client(11), id), "one of eleven is left");
    assert!(!is_said(client(12), id), "two of twelve are left");
    assert!(!is_said(server(true, false), id));
}

#[test]
fn time_wait_churn() {
    let id = AdviceId::TimeWaitChurn;
    let closed = |count: u16, port: fn(u16) -> u16, remote: fn(u16) -> u16| {
        let mut evidence = with(vec![listener(true, false)], Vec::new());
        for number in 0..count {
            let socket = outgoing(40_000 + number).with(|socket| {
                socket.id.origin = Origin::Live;
                socket.local = SocketAddr::new([10, 0, 0, 7].into(), port(number));
                socket.remote = Some(SocketAddr::new([10, 0, 0, 5].into(), remote(number)));
            });
            let socket = socket.build();
            let seen = sighting(&socket, State::TimeWait);
            evidence.snapshots[0].seen_mut().push(seen);
            evidence.closed_alive.push(socket.into());
        }
        evidence
    };
    let outgoing = |count| closed(count, |number| 40_000 + number, |_| 5432);
    assert_eq!(count(outgoing(100), id), Some(Fact::Count(100)));
    assert!(!is_said(outgoing(99), id));
    let of_a_server = closed(100, |_| 8080, |number| 40_000 + number);
    assert!(!is_said(of_a_server.clone(), id));
    assert_eq!(count(of_a_server, AdviceId::ClosingSide), Some(Fact::Count(100)));
}

#[test]
fn fixed_port_in_ephemeral_range() {
    let id = AdviceId::FixedPortInEphemeralRange;
    let listening = |port: u16, reserved| {
        let mut listener = listener(true, false);
        listener.local.set_port(port);
        let mut evidence = with(vec![listener], Vec::new());
        let rules = local_ports();
        evidence.snapshots[0].local_ports = Some(LocalPorts { reserved, ..rules });
        evidence
    };
    let expected = vec![
        ("listeners", Fact::Count(1)),
        ("ports", Fact::Ports(vec![40_060])),
    ];
    assert_eq!(grounds(listening(40_060, Vec::new()), id), Some(expected));
    assert!(!is_said(listening(40_060, vec![40_060..=40_060]), id));
    assert!(!is_said(listening(8080, Vec::new()), id));
    assert!(!is_said(server(true, false), id), "the range is not known");
}
