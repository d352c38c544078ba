//! Reading who has a local port, as far as `bind()` looks at it.

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use sockleak_ebpf::{Bitmap, MISSING, NO_UID, PORT_BUCKET, PORT_MINI, PortRecord};

use crate::maps::{INODES, PORTS};
use crate::memory::read_or_zero;
use crate::offsets::*;
use crate::sock_common::{Place, SockCommon};
use crate::socket;

/// `struct bpf_iter_meta` (include/linux/bpf.h), which the verifier knows by its type.
#[repr(C)]
pub struct Meta {
    seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

/// Appends a record to what the iterator's reader gets. When it does not fit into the kernel's buffer, the
/// kernel empties that and shows the same object again (`bpf_seq_read`, kernel/bpf/bpf_iter.c).
#[inline(always)]
pub fn write<T>(meta: *mut Meta, record: &T) {
    // SAFETY: The kernel gives every iterator its meta, and the helper copies as many bytes as the record has.
    unsafe {
        bpf_seq_write(
            (*meta).seq,
            core::ptr::from_ref(record).cast(),
            size_of::<T>() as u32,
        )
    };
}

/// Whether a socket of any kind has one of the ports that are asked for. It has the port for as long as `skc_num`
/// says so: `__inet_put_port` (net/ipv4/inet_hashtables.c) sets that to 0.
#[inline(always)]
pub fn is_wanted(sk: u64) -> bool {
    let port: u16 = read_or_zero(sk, SK_NUM.load());
    is_set(PORTS.get(0), port)
}

/// Whether this inode of a socket is asked for. Others with the same lowest 16 bits seem to be, too.
#[inline(always)]
pub fn may_be_wanted(inode: u64) -> bool {
    let number: u64 = read_or_zero(inode, INODE_INO.load());
    is_set(INODES.get(0), number as u16)
}

#[inline(always)]
fn is_set(bits: Option<&Bitmap>, place: u16) -> bool {
    let Some(bits) = bits else {
        return false;
    };
    bits[usize::from(place >> 6)] >> (place & 63) & 1 != 0
}

/// A full socket.
#[inline(always)]
pub fn full(sk: u64, family: u16, protocol: u16) -> PortRecord {
    let mut record = common(sk, family, protocol);
    let socket: u64 = read_or_zero(sk, SK_SOCKET.load());
    // `struct socket` is the beginning of `struct socket_alloc` (SOCK_INODE of include/net/sock.h).
    let inode = socket + u64::from(SOCKET_INODE.load());
    record.inode = read_or_zero(inode, INODE_INO.load());
    if HAS_SOCK_I_UID.load() != 0 {
        record.uid = read_or_zero(inode, INODE_UID.load());
    } else if SK_UID.load() != MISSING {
        record.uid = read_or_zero(sk, SK_UID.load());
    }
    bucket(&mut record, sk, ICSK_BIND_HASH.load());
    record
}

/// A time-wait mini socket. It has no member of `struct sock` beyond `struct sock_common`.
#[inline(always)]
pub fn mini(tw: u64, family: u16) -> PortRecord {
    let mut record = common(tw, family, socket::IPPROTO_TCP);
    record.state = read_or_zero(tw, TW_SUBSTATE.load());
    record.flags |= PORT_MINI;
    bucket(&mut record, tw, TW_TB.load());
    record
}

/// What `struct sock_common` tells, which every kind of socket begins with.
#[inline(always)]
fn common(sk: u64, family: u16, protocol: u16) -> PortRecord {
    let mut place = Place::uninit();
    let common = &SockCommon::read(&mut place, sk);
    let mut record = PortRecord {
        sk,
        cookie: common.get(SK_COOKIE.load()),
        inode: 0,
        laddr: [0; 16],
        raddr: [0; 16],
        netns: socket::netns(common),
        device: common.get(SK_BOUND_DEV_IF.load()),
        uid: NO_UID,
        bucket_uid: 0,
        lport: common.get(SK_NUM.load()),
        rport: u16::from_be(common.get(SK_DPORT.load())),
        family,
        protocol,
        state: common.get(SK_STATE.load()),
        flags: socket::options(common),
        fastreuse: 0,
        fastreuseport: 0,
        fast_addr: [0; 4],
        fast_v6_addr: [0; 16],
        fast_family: 0,
        fast_v6only: 0,
        _pad: 0,
        l3mdev: 0,
    };
    socket::addresses(&mut record.laddr, &mut record.raddr, common, family);
    record
}

/// The bind bucket that the member at `offset` leads to. It is freed when its last owner gives the port back,
/// which clears that member first: so what was read holds if the member is still the same.
#[inline(always)]
fn bucket(record: &mut PortRecord, sk: u64, offset: u32) {
    let members = [
        offset,
        TB_L3MDEV.load(),
        TB_FASTREUSE.load(),
        TB_FASTREUSEPORT.load(),
        TB_FASTUID.load(),
        TB_FAST_SK_FAMILY.load(),
        TB_FAST_RCV_SADDR.load(),
    ];
    if members.contains(&MISSING) {
        return;
    }
    let bucket: u64 = read_or_zero(sk, offset);
    record.l3mdev = read_or_zero(bucket, TB_L3MDEV.load());
    record.fastreuse = read_or_zero(bucket, TB_FASTREUSE.load());
    record.fastreuseport = read_or_zero(bucket, TB_FASTREUSEPORT.load());
    record.bucket_uid = read_or_zero(bucket, TB_FASTUID.load());
    record.fast_family = read_or_zero(bucket, TB_FAST_SK_FAMILY.load());
    record.fast_addr = read_or_zero(bucket, TB_FAST_RCV_SADDR.load());
    // A kernel without IPv6 has neither of these.
    if TB_FAST_V6_RCV_SADDR.load() != MISSING && TB_FAST_IPV6_ONLY.load() != MISSING {
        record.fast_v6_addr = read_or_zero(bucket, TB_FAST_V6_RCV_SADDR.load());
        record.fast_v6only = read_or_zero(bucket, TB_FAST_IPV6_ONLY.load());
    }
    if bucket != 0 && bucket == read_or_zero(sk, offset) {
        record.flags |= PORT_BUCKET;
    }
}
