//! The walk over a dying process's fd table: the exact inventory.
//!
//! It follows the bitmap of open descriptors, so empty slots cost a 64th of a step. One step of
//! `bpf_loop` takes either the next word of the bitmap or the next open descriptor of that word.

use aya_ebpf::helpers::generated::bpf_loop;
use sockleak_ebpf::{FdKey, ORIGIN_INVENTORY, SocketKey, SocketRecord, counter};

use crate::maps::{EXTRA_FDS, FOLLOWED, SOCKETS, WALK, count};
use crate::memory::{read, read_or_zero};
use crate::offsets::*;
use crate::socket;

/// `sysctl_nr_open_max` allows more, but the default `fs.nr_open` of every kernel is this.
const MAX_SLOTS: u32 = 1 << 20;
const BITS: u32 = 64;
const S_IFMT: u16 = 0xf000;
const S_IFSOCK: u16 = 0xc000;
const BPF_NOEXIST: u64 = 1;
const EEXIST: i32 = -17;

/// Where a walk stands and what it found.
#[repr(C)]
pub struct Walk {
    fds: u64,
    open_fds: u64,
    /// Open descriptors of the current word that were not looked at yet.
    open: u64,
    time: u64,
    tgid: u32,
    words: u32,
    /// Index of the next word.
    word: u32,
    sockets: u32,
    not_recorded: u32,
    slots_skipped: u32,
    record: SocketRecord,
}

/// What a walk found.
pub struct Walked {
    pub sockets: u32,
    pub not_recorded: u32,
    pub slots_skipped: u32,
}

/// Records every TCP and MPTCP socket of the table `files` in the inventory of the death of `tgid` at `time`.
#[inline(always)]
pub fn walk(files: u64, tgid: u32, time: u64) -> Walked {
    let nothing = Walked {
        sockets: 0,
        not_recorded: 0,
        slots_skipped: 0,
    };
    let Some(walk) = WALK.get_ptr_mut(0) else {
        return nothing;
    };
    // SAFETY: this CPU's element; no other program uses it, and the kernel does not run this one twice on a CPU.
    let walk = unsafe { &mut *walk };
    let fdt: u64 = read_or_zero(files, FILES_FDT.load());
    let slots: u32 = read_or_zero(fdt, FDT_MAX_FDS.load());
    walk.fds = read_or_zero(fdt, FDT_FD.load());
    walk.open_fds = read_or_zero(fdt, FDT_OPEN_FDS.load());
    walk.open = 0;
    walk.time = time;
    walk.tgid = tgid;
    walk.words = slots.div_ceil(BITS);
    walk.word = 0;
    walk.sockets = 0;
    walk.not_recorded = 0;
    walk.slots_skipped = slots.saturating_sub(MAX_SLOTS);
    if walk.words > MAX_SLOTS / BITS {
        walk.words = MAX_SLOTS / BITS;
    }
    let steps = MAX_SLOTS + MAX_SLOTS / BITS + 1;
    // SAFETY: `step` has the signature of a callback, and takes its state from the map instead of the context.
    unsafe { bpf_loop(steps, step as *mut core::ffi::c_void, core::ptr::null_mut(), 0) };
    Walked {
        sockets: walk.sockets,
        not_recorded: walk.not_recorded,
        slots_skipped: walk.slots_skipped,
    }
}

/// One step. Returns 1 to end the loop.
#[inline(never)]
extern "C" fn step(_index: u32, _context: *mut core::ffi::c_void) -> i64 {
    let Some(walk) = WALK.get_ptr_mut(0) else {
        return 1;
    };
    // SAFETY: as in `walk`, which waits for this.
    let walk = unsafe { &mut *walk };
    if walk.open == 0 {
        if walk.word >= walk.words {
            return 1;
        }
        walk.open = read_or_zero(walk.open_fds + u64::from(walk.word) * 8, 0);
        walk.word += 1;
        return 0;
    }
    let bit = walk.open.trailing_zeros();
    walk.open &= walk.open - 1;
    if walk.sockets >= MAX_SOCKETS.load() {
        walk.slots_skipped += 1;
        return 0;
    }
    take(walk, (walk.word - 1) * BITS + bit);
    0
}

/// Looks at one open descriptor, and records it if it is a TCP or MPTCP socket.
#[inline(always)]
fn take(walk: &mut Walk, fd: u32) {
    let file: u64 = read_or_zero(walk.fds + u64::from(fd) * 8, 0);
    let inode: u64 = read_or_zero(file, FILE_INODE.load());
    let mode: u16 = read_or_zero(inode, INODE_MODE.load());
    if mode & S_IFMT != S_IFSOCK {
        return;
    }
    // An O_PATH descriptor of a unix socket's name has the mode, but no struct socket that points back to it.
    let socket: u64 = read_or_zero(file, FILE_PRIVATE_DATA.load());
    if read_or_zero::<u64>(socket, SOCKET_FILE.load()) != file {
        return;
    }
    let sk: u64 = read_or_zero(socket, SOCKET_SK.load());
    let Some((family, protocol)) = socket::tcp_kind(sk) else {
        return;
    };
    let record = &mut walk.record;
    socket::fill(record, sk, family, protocol);
    record.fd = fd;
    record.fd_count = 1;
    record.inode = read_or_zero(inode, INODE_INO.load());
    record.references = references(file);
    let key = SocketKey {
        sk,
        time: walk.time,
        tgid: walk.tgid,
        origin: ORIGIN_INVENTORY,
    };
    match SOCKETS.insert(key, &*record, BPF_NOEXIST) {
        Ok(()) => {
            walk.sockets += 1;
            if FOLLOWED.insert(sk, key, 0).is_err() {
                count(counter::FOLLOW_FAILED);
            }
        }
        Err(EEXIST) => add_fd(key, fd),
        Err(_) => walk.not_recorded += 1,
    }
}

/// The socket has another descriptor already (dup).
#[inline(always)]
fn add_fd(key: SocketKey, fd: u32) {
    if let Some(record) = SOCKETS.get_ptr_mut(key) {
        // SAFETY: the entry was found just now, and only this walk counts its descriptors.
        unsafe { (*record).fd_count += 1 };
    }
    let key = FdKey {
        sk: key.sk,
        time: key.time,
        tgid: key.tgid,
        fd,
    };
    let _ = EXTRA_FDS.insert(key, 1, 0);
}

/// References to a `struct file`. `f_ref` (6.13 and later) counts from 0: include/linux/file_ref.h.
#[inline(always)]
fn references(file: u64) -> u32 {
    if let Some(references) = read::<u64>(file, FILE_REF.load()) {
        return references as u32 + 1;
    }
    read_or_zero::<u64>(file, FILE_COUNT.load()) as u32
}
