//! Reading `struct sock`.

use sockleak_ebpf::{
    NO_FD, NO_LINGER, SOCKET_ERR_RESET, SOCKET_REPAIR, SOCKET_REUSE, SOCKET_REUSEPORT, SOCKET_V6ONLY,
    SocketRecord, state,
};

use crate::memory::{read, read_bits, read_into, read_or_zero};
use crate::offsets::*;

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
fn local_port(sk: u64) -> u16 {
    match read_or_zero(sk, INET_SPORT.load()) {
        0 => read_or_zero(sk, SK_NUM.load()),
        sport => u16::from_be(sport),
    }
}

/// Reads the local and the remote address: of IPv4 the first four bytes.
#[inline(always)]
pub fn addresses(laddr: &mut [u8; 16], raddr: &mut [u8; 16], sk: u64, family: u16) {
    if family == AF_INET6 {
        read_into(laddr, sk, SK_V6_RCV_SADDR.load());
        read_into(raddr, sk, SK_V6_DADDR.load());
        return;
    }
    *laddr = [0; 16];
    *raddr = [0; 16];
    read_into(&mut laddr[..4], sk, SK_RCV_SADDR.load());
    read_into(&mut raddr[..4], sk, SK_DADDR.load());
}

/// Inode of the socket's own network namespace: that of the task is gone when a dying process closes.
#[inline(always)]
pub fn netns(sk: u64) -> u32 {
    let net: u64 = read_or_zero(sk, SK_NET.load());
    read_or_zero(net, NET_INUM.load())
}

/// Fills in everything that the `struct sock` itself tells. `fd` and what belongs to it stay empty.
#[inline(always)]
pub fn fill(record: &mut SocketRecord, sk: u64, family: u16, protocol: u16) {
    addresses(&mut record.laddr, &mut record.raddr, sk, family);
    record.cookie = read_or_zero(sk, SK_COOKIE.load());
    record.inode = 0;
    record.msk = 0;
    record.netns = netns(sk);
    record.lport = local_port(sk);
    record.rport = u16::from_be(read_or_zero(sk, SK_DPORT.load()));
    record.family = family;
    record.protocol = protocol;
    record.fd = NO_FD;
    record.fd_count = 0;
    record.references = 0;
    record.unread = 0;
    record.unacked = 0;
    record.accept_queue = 0;
    record.linger = linger(sk);
    record.linger2 = 0;
    record.uid = read(sk, SK_UID.load()).unwrap_or(u32::MAX);
    record.state = read_or_zero(sk, SK_STATE.load());
    record.shutdown = read_bits(sk, SK_SHUTDOWN.load(), 8);
    record.flags = flags(sk);
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
fn linger(sk: u64) -> u32 {
    let flags: u64 = read_or_zero(sk, SK_FLAGS.load());
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
pub fn options(sk: u64) -> u8 {
    // Without a branch: a verifier would look at all that follows once for each combination.
    u8::from(read_bits(sk, SK_REUSE.load(), 4) != 0) * SOCKET_REUSE
        | read_bits(sk, SK_REUSEPORT.load(), 1) * SOCKET_REUSEPORT
        | read_bits(sk, SK_IPV6ONLY.load(), 1) * SOCKET_V6ONLY
}

#[inline(always)]
fn flags(sk: u64) -> u8 {
    let mut flags = options(sk);
    if read_or_zero::<u32>(sk, SK_ERR.load()) == ECONNRESET {
        flags |= SOCKET_ERR_RESET;
    }
    flags
}
