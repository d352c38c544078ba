//! Reading `struct sock`.

use sockleak_ebpf::{
    NO_FD, NO_LINGER, SOCKET_ERR_RESET, SOCKET_NONLOCAL, SOCKET_REPAIR, SOCKET_REUSE, SOCKET_REUSEPORT,
    SOCKET_V6ONLY, SocketRecord, state,
};

use crate::memory::{read, read_bits, read_or_zero};
use crate::offsets::*;
use crate::sock_common::{Place, SockCommon};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u16 = 6;
pub const IPPROTO_MPTCP: u16 = 262;
/// `SOCK_LINGER` of `enum sock_flags` (include/net/sock.h), equal from 5.10 to 7.3.
const SOCK_LINGER_BIT: u64 = 1 << 4;
const ECONNRESET: u32 = 104;
/// `sk_lingertime` is in jiffies; user space scales it. Values beyond this mean "for ever".
const LINGER_MAX: u64 = (u32::MAX - 1) as u64;

/// The family and protocol if this is a TCP or MPTCP socket.
#[inline(always)]
pub fn tcp_kind(sk: u64) -> Option<(u16, u16)> {
    let family: u16 = read(sk, SK_FAMILY.load())?;
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    let protocol: u16 = read(sk, SK_PROTOCOL.load())?;
    (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP).then_some((family, protocol))
}

/// The local port is `inet_sport`: `skc_num` is 0 already when a connection becomes CLOSE (`tcp_set_state`
/// calls `inet_put_port` first).
#[inline(always)]
fn local_port(sk: u64, common: &SockCommon<'_>) -> u16 {
    match read_or_zero(sk, INET_SPORT.load()) {
        0 => common.get(SK_NUM.load()),
        sport => u16::from_be(sport),
    }
}

/// The local and the remote address: of IPv4 the first four bytes.
#[inline(always)]
pub fn addresses(laddr: &mut [u8; 16], raddr: &mut [u8; 16], common: &SockCommon<'_>, family: u16) {
    if family == AF_INET6 {
        *laddr = common.address(SK_V6_RCV_SADDR.load());
        *raddr = common.address(SK_V6_DADDR.load());
        return;
    }
    *laddr = [0; 16];
    *raddr = [0; 16];
    laddr[..4].copy_from_slice(&common.get::<u32>(SK_RCV_SADDR.load()).to_ne_bytes());
    raddr[..4].copy_from_slice(&common.get::<u32>(SK_DADDR.load()).to_ne_bytes());
}

/// Inode of the socket's own network namespace: that of the task is gone when a dying process closes.
#[inline(always)]
pub fn netns(common: &SockCommon<'_>) -> u32 {
    let net: u64 = common.get(SK_NET.load());
    read_or_zero(net, NET_INUM.load())
}

/// Fills in everything that the `struct sock` itself tells. `fd` and what belongs to it stay empty.
#[inline(always)]
pub fn fill(record: &mut SocketRecord, sk: u64, family: u16, protocol: u16) {
    let mut place = Place::uninit();
    let common = &SockCommon::read(&mut place, sk);
    addresses(&mut record.laddr, &mut record.raddr, common, family);
    record.cookie = common.get(SK_COOKIE.load());
    record.inode = 0;
    record.msk = 0;
    record.netns = netns(common);
    record.lport = local_port(sk, common);
    record.rport = u16::from_be(common.get(SK_DPORT.load()));
    record.family = family;
    record.protocol = protocol;
    record.fd = NO_FD;
    record.fd_count = 0;
    record.references = 0;
    record.unread = 0;
    record.unacked = 0;
    record.accept_queue = 0;
    record.linger = linger(sk, common);
    record.linger2 = 0;
    record.uid = read(sk, SK_UID.load()).unwrap_or(u32::MAX);
    record.device = common.get(SK_BOUND_DEV_IF.load());
    record.state = common.get(SK_STATE.load());
    record.shutdown = read_bits(sk, SK_SHUTDOWN.load(), 8);
    record.flags = flags(sk, common);
    record._pad = [0; 4];
    record.change_count = 0;
    record.reset_sent = 0;
    record.reset_reason = 0;
    record.reset_received = 0;
    record.reset_received_in = 0;
    if record.state == state::LISTEN {
        record.accept_queue = read_or_zero(sk, SK_ACK_BACKLOG.load());
    } else if protocol == IPPROTO_TCP {
        record.linger2 = read_or_zero(sk, TCP_LINGER2.load());
        if read_bits(sk, TCP_REPAIR.load(), 1) != 0 {
            record.flags |= SOCKET_REPAIR;
        }
        if record.state != state::CLOSE && record.state != state::SYN_SENT {
            let rcv_nxt: u32 = read_or_zero(sk, TCP_RCV_NXT.load());
            let copied_seq: u32 = read_or_zero(sk, TCP_COPIED_SEQ.load());
            let write_seq: u32 = read_or_zero(sk, TCP_WRITE_SEQ.load());
            let snd_una: u32 = read_or_zero(sk, TCP_SND_UNA.load());
            record.unread = rcv_nxt.wrapping_sub(copied_seq);
            record.unacked = write_seq.wrapping_sub(snd_una);
        }
    }
}

#[inline(always)]
fn linger(sk: u64, common: &SockCommon<'_>) -> u32 {
    let flags: u64 = common.get(SK_FLAGS.load());
    if flags & SOCK_LINGER_BIT == 0 {
        return NO_LINGER;
    }
    let jiffies: u64 = read_or_zero(sk, SK_LINGERTIME.load());
    if jiffies > LINGER_MAX {
        LINGER_MAX as u32
    } else {
        jiffies as u32
    }
}

/// What `struct sock_common` tells of the options, as bits of [`SocketRecord::flags`].
#[inline(always)]
pub fn options(common: &SockCommon<'_>) -> u8 {
    // Without a branch: a verifier would look at all that follows once for each combination.
    u8::from(common.bits(SK_REUSE.load(), 4) != 0) * SOCKET_REUSE
        | common.bits(SK_REUSEPORT.load(), 1) * SOCKET_REUSEPORT
        | common.bits(SK_IPV6ONLY.load(), 1) * SOCKET_V6ONLY
}

/// [`SOCKET_NONLOCAL`] if IP_FREEBIND or IP_TRANSPARENT is set. They were bit fields before 6.6.
#[inline(always)]
pub fn nonlocal(sk: u64) -> u8 {
    /// `1 << INET_FLAGS_FREEBIND | 1 << INET_FLAGS_TRANSPARENT` (include/net/inet_sock.h), equal from 6.6 to 7.3.
    const NONLOCAL: u64 = 1 << 11 | 1 << 15;
    let flags: u64 = read_or_zero(sk, INET_FLAGS.load());
    let fields = read_bits(sk, INET_FREEBIND.load(), 1) | read_bits(sk, INET_TRANSPARENT.load(), 1);
    u8::from(flags & NONLOCAL != 0 || fields != 0) * SOCKET_NONLOCAL
}

#[inline(always)]
fn flags(sk: u64, common: &SockCommon<'_>) -> u8 {
    let mut flags = options(common);
    if read_or_zero::<u32>(sk, SK_ERR.load()) == ECONNRESET {
        flags |= SOCKET_ERR_RESET;
    }
    flags
}
