use proptest::prelude::*;

use super::attributes::{INET_DIAG_ULP_INFO, INET_ULP_INFO_NAME};
use super::*;

const SEQUENCE: u32 = 7;

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32_ne((NETLINK_HEADER + payload.len()) as u32);
    out.put_u16_ne(kind);
    out.put_u16_ne(flags);
    out.put_u32_ne(sequence);
    out.put_u32_ne(0);
    out.put_slice(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn inet_diag_msg(family: i32, state: u8, local: &[u8; 16], attributes: &[u8]) -> Vec<u8> {
    let mut out = vec![family as u8, state, 3, 2];
    out.put_u16(8080);
    out.put_u16(40310);
    out.put_slice(local);
    out.put_slice(local);
    out.put_u32_ne(7);
    out.put_u32_ne(0x11);
    out.put_u32_ne(0x22);
    for word in [59_720, 1, 2, 1000, 123_456] {
        out.put_u32_ne(word);
    }
    out.put_slice(attributes);
    out
}

fn tcp_info_attribute(backoff: u8, rto: u32) -> Vec<u8> {
    let mut info = vec![1, 0, 0, 0, backoff, 7, 0, 0];
    info.put_u32_ne(rto);
    info.resize(56, 0);
    info.put_u32_ne(4711);
    info.resize(232, 0);
    let mut out = Vec::new();
    put_attribute(&mut out, 15, &[0; 4]);
    put_attribute(&mut out, INET_DIAG_INFO, &info);
    out
}

fn decoded(datagram: &[u8]) -> Result<(Vec<Sighting>, Progress), SockDiagError> {
    let mut rows = Vec::new();
    let progress = decode(datagram, Protocol::Tcp, SEQUENCE, &mut rows)?;
    Ok((rows, progress))
}

const LOOPBACK: [u8; 16] = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

#[test]
fn decodes_a_socket_and_the_end() {
    let row = inet_diag_msg(libc::AF_INET, 5, &LOOPBACK, &tcp_info_attribute(3, 204_000));
    let mut datagram = message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &row);
    datagram.extend(message(3, 2, SEQUENCE, &0_i32.to_ne_bytes()));
    let (rows, progress) = decoded(&datagram).unwrap();
    let expected = Sighting {
        protocol: Protocol::Tcp,
        state: State::FinWait2,
        local: "127.0.0.1:8080".parse().unwrap(),
        remote: "127.0.0.1:40310".parse().unwrap(),
        cookie: 0x22_0000_0011,
        inode: 123_456,
        timer: Timer::TimeWait,
        expires: Duration::from_millis(59_720),
        retransmits: 2,
        rto: Some(Duration::from_millis(204)),
        backoff: 3,
        send_queue: 2,
        last_ack: Some(Duration::from_millis(4711)),
        timestamps: Some(true),
        interface: 7,
        is_subflow: false,
    };
    assert_eq!(rows, [expected]);
    assert_eq!(
        progress,
        Progress {
            done: true,
            interrupted: false
        }
    );
}

#[test]
fn mapped_addresses_stay_mapped_and_mini_sockets_have_no_rto() {
    let row = inet_diag_msg(libc::AF_INET6, 6, &MAPPED, &[]);
    let (rows, progress) = decoded(&message(SOCK_DIAG_BY_FAMILY, 0x12, SEQUENCE, &row)).unwrap();
    assert_eq!(rows[0].local, "[::ffff:127.0.0.1]:8080".parse().unwrap());
    assert_eq!((rows[0].rto, rows[0].backoff, rows[0].last_ack), (None, 0, None));
    assert_eq!(
        progress,
        Progress {
            done: false,
            interrupted: true
        }
    );
}

#[test]
fn a_subflow_is_told_by_its_upper_layer_protocol() {
    for (name, expected) in [(&b"mptcp\0"[..], true), (b"tls\0", false), (b"", false)] {
        let mut info = Vec::new();
        put_attribute(&mut info, INET_ULP_INFO_NAME, name);
        info.resize(info.len().next_multiple_of(4), 0);
        let mut attributes = tcp_info_attribute(0, 204_000);
        put_attribute(&mut attributes, INET_DIAG_ULP_INFO, &info);
        let row = inet_diag_msg(libc::AF_INET, 4, &LOOPBACK, &attributes);
        let (rows, _) = decoded(&message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &row)).unwrap();
        assert_eq!(rows[0].is_subflow, expected, "{name:?}");
    }
}

#[test]
fn skips_what_does_not_answer_and_states_of_later_kernels() {
    let stale = inet_diag_msg(libc::AF_INET, 6, &LOOPBACK, &[]);
    let later = inet_diag_msg(libc::AF_INET, 99, &LOOPBACK, &[]);
    let mut datagram = message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE - 1, &stale);
    datagram.extend(message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &later));
    assert_eq!(decoded(&datagram).unwrap(), (Vec::new(), Progress::default()));
}

#[test]
fn tells_the_kernels_refusal() {
    for kind in [2, 3] {
        let refusal = message(kind, 0, SEQUENCE, &(-libc::ENOENT).to_ne_bytes());
        assert!(matches!(
            decoded(&refusal),
            Err(SockDiagError::Refused(libc::ENOENT))
        ));
    }
    let short = message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &[0; 71]);
    assert!(matches!(decoded(&short), Err(SockDiagError::Malformed(_))));
    assert!(matches!(decoded(&[16, 0, 0]), Err(SockDiagError::Malformed(_))));
    assert!(matches!(decoded(&[0; 16]), Err(SockDiagError::Malformed(_))));
}

#[test]
fn encodes_what_the_kernel_expects() {
    let query = Query {
        protocol: Protocol::Mptcp,
        family: Family::Ipv6,
        states: 0x3ffe,
        end: End::Local,
        ports: vec![80..=80, 8000..=8999],
        tcp_info: true,
    };
    let bytes = encode(&query, SEQUENCE);
    assert_eq!(
        u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize,
        bytes.len()
    );
    assert_eq!(bytes.len(), 16 + 56 + 8 + 4 + 36);
    assert_eq!(bytes[16..19], [libc::AF_INET6 as u8, 6, 2]);
    assert_eq!(bytes[76..80], 262_u32.to_ne_bytes());
    let without = Query {
        tcp_info: false,
        ..query
    };
    assert_eq!(encode(&without, SEQUENCE)[18], 0);
}

/// `inet_diag_bc_run`, for the ops that are used here.
fn accepts(mut program: &[u8], local_port: u16, remote_port: u16) -> bool {
    while !program.is_empty() {
        let word = |at: usize| u16::from_ne_bytes([program[at], program[at + 1]]);
        let holds = match program[0] {
            BC_JMP => false,
            BC_S_GE => local_port >= word(6),
            BC_S_LE => local_port <= word(6),
            BC_D_GE => remote_port >= word(6),
            BC_D_LE => remote_port <= word(6),
            other => panic!("op {other}"),
        };
        let step = usize::from(if holds { u16::from(program[1]) } else { word(2) });
        match program.get(step..) {
            Some(rest) => program = rest,
            None => return false,
        }
    }
    true
}

proptest! {
    #[test]
    fn the_filter_program_accepts_the_ranges(
        ports in proptest::collection::vec((any::<u16>(), 0..2000_u16), 1..33),
        probe in any::<u16>(),
        other in any::<u16>(),
    ) {
        let ranges: Vec<_> = ports.iter().map(|(low, width)| *low..=low.saturating_add(*width)).collect();
        let here = bytecode(End::Local, &ranges);
        let there = bytecode(End::Remote, &ranges);
        for port in ranges.iter().flat_map(|range| [*range.start(), *range.end()]).chain([probe]) {
            let is_wanted = ranges.iter().any(|range| range.contains(&port));
            prop_assert_eq!(accepts(&here, port, other), is_wanted);
            prop_assert_eq!(accepts(&there, other, port), is_wanted);
        }
    }

    #[test]
    fn hostile_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decoded(&bytes);
    }

    #[test]
    fn mutated_answers_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let row = inet_diag_msg(libc::AF_INET, 5, &LOOPBACK, &tcp_info_attribute(3, 204_000));
        let mut datagram = message(SOCK_DIAG_BY_FAMILY, 2, SEQUENCE, &row);
        datagram.extend(message(3, 2, SEQUENCE, &0_i32.to_ne_bytes()));
        for (at, byte) in changes {
            let at = at.index(datagram.len());
            datagram[at] = byte;
        }
        let _ = decoded(&datagram);
        let _ = decoded(&datagram[..cut.index(datagram.len())]);
    }
}
