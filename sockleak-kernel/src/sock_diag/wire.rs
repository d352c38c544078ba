//! Queries and answers of sock_diag, as bytes.
//!
//! The structs are those of include/uapi/linux/inet_diag.h and include/uapi/linux/netlink.h. Numbers of
//! netlink are in host byte order, ports and addresses in network byte order.

mod attributes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Buf, BufMut};
use sockleak_core::observed::{Family, Protocol, Sighting, State, Timer};

use self::attributes::{INET_DIAG_INFO, TcpInfo, is_subflow, tcp_info};
use super::error::SockDiagError;
use super::filter::End;

/// `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// `struct inet_diag_msg`.
const ROW: usize = 72;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
const BC_JMP: u8 = 1;
const BC_S_GE: u8 = 2;
const BC_S_LE: u8 = 3;
const BC_D_GE: u8 = 4;
const BC_D_LE: u8 = 5;

/// What one dump asks for.
#[derive(Clone, Debug)]
pub struct Query {
    pub protocol: Protocol,
    pub family: Family,
    /// Bit `1 << state` for each wanted [`State`].
    pub states: u32,
    /// Which end `ports` are about.
    pub end: End,
    /// Wanted ports; empty for all.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Ask for `struct tcp_info`. What is an MPTCP subflow is told beside it only (`inet_sk_diag_fill`,
    /// net/ipv4/inet_diag.c).
    pub tcp_info: bool,
}

/// What a datagram of the answer said besides its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It ended the dump.
    pub done: bool,
    /// The kernel's table changed so that the dump must be repeated (NLM_F_DUMP_INTR).
    pub interrupted: bool,
}

/// Encodes a query.
#[must_use]
pub fn encode(query: &Query, sequence: u32) -> Vec<u8> {
    let mut out = request(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, sequence);
    // struct inet_diag_req_v2. A protocol beyond 255 goes into an attribute and is cut off here.
    let protocol = protocol_number(query.protocol);
    out.put_u8(family_number(query.family));
    out.put_u8(protocol as u8);
    out.put_u8(u8::from(query.tcp_info) << (INET_DIAG_INFO - 1));
    out.put_u8(0);
    out.put_u32_ne(query.states);
    out.put_bytes(0, 48);

    if protocol > 255 {
        put_attribute(&mut out, INET_DIAG_REQ_PROTOCOL, &protocol.to_ne_bytes());
    }
    if !query.ports.is_empty() {
        put_attribute(
            &mut out,
            INET_DIAG_REQ_BYTECODE,
            &bytecode(query.end, &query.ports),
        );
    }
    finish(out)
}

/// The header of a request, with these flags beside NLM_F_REQUEST; [`finish`] fills the length in.
pub(super) fn request(kind: u16, flags: i32, sequence: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_u32_ne(0);
    out.put_u16_ne(kind);
    out.put_u16_ne((libc::NLM_F_REQUEST | flags) as u16);
    out.put_u32_ne(sequence);
    out.put_u32_ne(0);
    out
}

pub(super) fn finish(mut request: Vec<u8>) -> Vec<u8> {
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request
}

pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}

pub(super) fn protocol_number(protocol: Protocol) -> u32 {
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Mptcp => libc::IPPROTO_MPTCP,
    };
    number.cast_unsigned()
}

/// Appends a `struct nlattr`. Every value here is a multiple of four bytes long, so none needs padding.
fn put_attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.put_u16_ne(4 + value.len() as u16);
    out.put_u16_ne(kind);
    out.put_slice(value);
}

/// The filter program "the port of that end is in one of these ranges" for `inet_diag_bc_run` (net/ipv4/inet_diag.c).
///
/// Each range is two comparisons, each of them an op and an op that carries the port, and a jump to the
/// end, which accepts. A comparison that fails goes on with the next range; in the last range it
/// jumps four bytes beyond the end, which rejects. `inet_diag_bc_audit` follows the `yes` way only, so
/// every target of a `no` must lie on it.
fn bytecode(end: End, ranges: &[RangeInclusive<u16>]) -> Vec<u8> {
    let (at_least, at_most) = match end {
        End::Local => (BC_S_GE, BC_S_LE),
        End::Remote => (BC_D_GE, BC_D_LE),
    };
    const OP: usize = 4;
    const COMPARISON: usize = 2 * OP;
    const RANGE: usize = 2 * COMPARISON + OP;
    let length = ranges.len() * RANGE - OP;
    let mut out = Vec::with_capacity(length);
    for range in ranges {
        let next = out.len() + RANGE;
        let last = next > length;
        // Behind the last range there is no jump: `next` is then already the four bytes beyond the end.
        for (code, port) in [(at_least, *range.start()), (at_most, *range.end())] {
            let otherwise = next - out.len();
            out.put_u8(code);
            out.put_u8(COMPARISON as u8);
            out.put_u16_ne(otherwise as u16);
            out.put_u16_ne(0);
            out.put_u16_ne(port);
        }
        if !last {
            let to_end = length - out.len();
            out.put_u8(BC_JMP);
            out.put_u8(OP as u8);
            out.put_u16_ne(to_end as u16);
        }
    }
    out
}

/// A message of an answer.
pub(super) struct Message<'a> {
    pub kind: i32,
    pub flags: i32,
    /// The sequence number of the request that it answers.
    pub answers: u32,
    pub payload: &'a [u8],
}

/// Takes the next message off a datagram; `None` at its end.
pub(super) fn next_message<'a>(datagram: &mut &'a [u8]) -> Result<Option<Message<'a>>, SockDiagError> {
    let rest = *datagram;
    if rest.is_empty() {
        return Ok(None);
    }
    let Some(mut header) = rest.get(..NETLINK_HEADER) else {
        return Err(SockDiagError::Malformed("a message ends within its header"));
    };
    let length = header.get_u32_ne() as usize;
    let kind = header.get_u16_ne().into();
    let flags = header.get_u16_ne().into();
    let answers = header.get_u32_ne();
    let Some(payload) = rest.get(NETLINK_HEADER..length) else {
        return Err(SockDiagError::Malformed("a message is longer than its datagram"));
    };
    *datagram = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Ok(Some(Message {
        kind,
        flags,
        answers,
        payload,
    }))
}

/// Decodes one datagram of the answer to the query of that sequence number, and appends its rows.
///
/// # Errors
///
/// When the kernel refused the query, or the bytes are not an answer.
pub fn decode(
    mut datagram: &[u8],
    protocol: Protocol,
    sequence: u32,
    rows: &mut Vec<Sighting>,
) -> Result<Progress, SockDiagError> {
    let mut progress = Progress::default();
    while !progress.done
        && let Some(message) = next_message(&mut datagram)?
    {
        // What an earlier query left in the queue is not an answer to this one.
        if message.answers != sequence {
            continue;
        }
        progress.interrupted |= message.flags & libc::NLM_F_DUMP_INTR != 0;
        match message.kind {
            kind if kind == i32::from(SOCK_DIAG_BY_FAMILY) => rows.extend(row(message.payload, protocol)?),
            // An error that the dump itself met is told by its last message (netlink_dump_done).
            libc::NLMSG_DONE => {
                refuse(message.payload)?;
                progress.done = true;
            }
            libc::NLMSG_ERROR => refuse(message.payload)?,
            _ => {}
        }
    }
    Ok(progress)
}

/// Turns the negative errno at the beginning of a message into an error.
pub(super) fn refuse(mut payload: &[u8]) -> Result<(), SockDiagError> {
    match payload.try_get_i32_ne() {
        Ok(errno) if errno < 0 => Err(SockDiagError::Refused(errno.checked_neg().unwrap_or(i32::MAX))),
        _ => Ok(()),
    }
}

/// Decodes a `struct inet_diag_msg` and the attributes behind it. A state that is unknown here, which only a
/// later kernel can have, gives no row.
fn row(message: &[u8], protocol: Protocol) -> Result<Option<Sighting>, SockDiagError> {
    if message.len() < ROW {
        return Err(SockDiagError::Malformed("a socket's row is too short"));
    }
    let (mut fixed, attributes) = message.split_at(ROW);
    let family = fixed.get_u8();
    let number = fixed.get_u8();
    let timer = timer(fixed.get_u8());
    let retransmits = fixed.get_u8();
    let local_port = fixed.get_u16();
    let remote_port = fixed.get_u16();
    // A socket that is bound only is asked for as BOUND_INACTIVE but told with its own state, CLOSE
    // (inet_diag_dump_icsk, net/ipv4/inet_diag.c). Every other closed one is in no table, or has a peer.
    let state = match State::from_number(number) {
        Some(State::Close) if protocol == Protocol::Tcp && remote_port == 0 => Some(State::BoundInactive),
        state => state,
    };
    let local = address(family, &mut fixed)?;
    let remote = address(family, &mut fixed)?;
    let interface = fixed.get_u32_ne();
    let cookie = u64::from(fixed.get_u32_ne()) | u64::from(fixed.get_u32_ne()) << 32;
    let expires = Duration::from_millis(u64::from(fixed.get_u32_ne()));
    let _receive_queue = fixed.get_u32_ne();
    let send_queue = fixed.get_u32_ne();
    let _uid = fixed.get_u32_ne();
    let inode = u64::from(fixed.get_u32_ne());
    // For an MPTCP socket the attribute holds a struct mptcp_info, which has none of this.
    let info = match protocol {
        Protocol::Tcp => tcp_info(attributes).unwrap_or_default(),
        Protocol::Mptcp => TcpInfo::default(),
    };
    Ok(state.map(|state| Sighting {
        protocol,
        state,
        local: SocketAddr::new(local, local_port),
        remote: SocketAddr::new(remote, remote_port),
        cookie,
        inode,
        timer,
        expires,
        retransmits,
        rto: info.rto,
        backoff: info.backoff,
        send_queue,
        last_ack: info.last_ack,
        timestamps: info.timestamps,
        interface,
        is_subflow: protocol == Protocol::Tcp && is_subflow(attributes),
    }))
}

fn timer(number: u8) -> Timer {
    match number {
        0 => Timer::None,
        1 => Timer::Retransmit,
        2 => Timer::Keepalive,
        3 => Timer::TimeWait,
        4 => Timer::Persist,
        5 => Timer::DelayedAck,
        other => Timer::Unknown(other),
    }
}

/// Takes the 16 bytes of an address; IPv4 uses the first four. A v4-mapped one stays an IPv6 address.
fn address(family: u8, bytes: &mut &[u8]) -> Result<IpAddr, SockDiagError> {
    let mut octets = [0; 16];
    bytes.copy_to_slice(&mut octets);
    match i32::from(family) {
        libc::AF_INET => Ok(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()),
        libc::AF_INET6 => Ok(Ipv6Addr::from(octets).into()),
        _ => Err(SockDiagError::Malformed("a socket is neither IPv4 nor IPv6")),
    }
}

#[cfg(test)]
mod tests;
