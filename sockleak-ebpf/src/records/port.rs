//! Who has a port or a socket: what the iterators are asked, and what they write.

/// Bit `number % 64` of word `number / 64` says that what has this number of 16 bits is asked for. Value of `PORTS` and
/// `INODES`.
pub type Bitmap = [u64; 1024];

/// A socket that has a local port, with all that `bind()` looks at.
///
/// Of a time-wait mini socket only what `struct sock_common` and `struct inet_timewait_sock` have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortRecord {
    /// Address of the `struct sock` or `struct inet_timewait_sock`.
    pub sk: u64,
    /// `skc_cookie`; 0 if none was generated yet.
    pub cookie: u64,
    /// Inode of the socket in sockfs; 0 for one that has no `struct socket`.
    pub inode: u64,
    /// Local address; IPv4 in the first four bytes.
    pub laddr: [u8; 16],
    /// Remote address; all zero without a peer.
    pub raddr: [u8; 16],
    /// Inode of the network namespace.
    pub netns: u32,
    /// `skc_bound_dev_if`; 0 for none.
    pub device: u32,
    /// The uid that `bind()` compares for SO_REUSEPORT; [`NO_UID`] for a mini socket, of which it compares none.
    pub uid: u32,
    /// `fastuid` of the bind bucket.
    pub bucket_uid: u32,
    /// Local port (`skc_num`), which a socket has until it gives it back.
    pub lport: u16,
    /// Remote port; 0 without a peer.
    pub rport: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_TCP` or `IPPROTO_MPTCP`.
    pub protocol: u16,
    /// `skc_state`, but for a mini socket `tw_substate`.
    pub state: u8,
    /// [`SOCKET_REUSE`], [`SOCKET_REUSEPORT`], [`SOCKET_V6ONLY`], [`PORT_MINI`] and [`PORT_BUCKET`].
    pub flags: u8,
    /// `fastreuse` of the bind bucket.
    pub fastreuse: i8,
    /// `fastreuseport` of the bind bucket: [`FASTREUSEPORT_ANY`], [`FASTREUSEPORT_STRICT`] or another number.
    pub fastreuseport: i8,
    /// `fast_rcv_saddr` of the bind bucket.
    pub fast_addr: [u8; 4],
    /// `fast_v6_rcv_saddr` of the bind bucket.
    pub fast_v6_addr: [u8; 16],
    /// `fast_sk_family` of the bind bucket, which says which of the two holds.
    pub fast_family: u16,
    /// `fast_ipv6_only` of the bind bucket.
    pub fast_v6only: u8,
    /// Padding, always 0.
    pub _pad: u8,
    /// `l3mdev` of the bind bucket: index of the VRF that it belongs to; 0 for none.
    pub l3mdev: u32,
}

/// A descriptor that leads to a socket that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortFileRecord {
    /// The socket.
    pub owner: PortRecord,
    /// Process id.
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
    /// `comm` of the thread-group leader.
    pub comm: [u8; 16],
}

/// [`PortRecord::flags`]: a time-wait mini socket.
pub const PORT_MINI: u8 = 64;
/// [`PortRecord::flags`]: the members of the bind bucket hold.
pub const PORT_BUCKET: u8 = 128;
/// [`PortRecord::uid`]: none.
pub const NO_UID: u32 = u32::MAX;
/// `FASTREUSEPORT_ANY` of include/net/inet_hashtables.h, equal from 5.10 to 7.3.
pub const FASTREUSEPORT_ANY: i8 = 1;
/// `FASTREUSEPORT_STRICT`, as above.
pub const FASTREUSEPORT_STRICT: i8 = 2;

const _: () = {
    assert!(size_of::<PortRecord>() == 112);
    assert!(size_of::<PortFileRecord>() == 136);
};
