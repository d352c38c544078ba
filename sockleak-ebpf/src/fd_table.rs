//! The walk over a dying process's fd table: the exact inventory.
//!
//! It follows the bitmap of open descriptors, so empty slots cost a 64th of a step.
//!
//! A million steps are no loop that a verifier could follow one by one, and `bpf_loop` is not in 5.10. But a
//! global function (one with external linkage and BTF, 5.6 and later) is verified once, and a call of it is one
//! instruction to the verifier: so a step is such a function, and hundreds of steps are another one.

use core::hint::black_box;

use sockleak_ebpf::{MISSING, ORIGIN_INVENTORY, ProcessKey, SocketKey, SocketRecord};

use crate::file;
use crate::inventory::{self, Kept};
use crate::maps::WALK;
use crate::memory::read_or_zero;
use crate::mptcp::{self, Subflows};
use crate::offsets::*;
use crate::socket;

/// `sysctl_nr_open_max` allows more, but the default `fs.nr_open` of every kernel is this.
const MAX_SLOTS: u32 = 1 << 20;
/// Bits of a word of the bitmap.
const BITS: u32 = 64;

/// A walk: where it stands, and what it found. It lies in a map, because a global function is given no pointers.
#[repr(C)]
pub struct Walk {
    /// Whose death it belongs to.
    pub process: ProcessKey,
    pub time: u64,
    fds: u64,
    open_fds: u64,
    /// Open descriptors of the current word that were not looked at yet.
    open: u64,
    words: u32,
    /// Index of the next word.
    word: u32,
    pub sockets: u32,
    pub not_recorded: u32,
    pub slots_skipped: u32,
    _pad: u32,
    /// The socket that is read next.
    pub sk: u64,
    key: SocketKey,
    pub subflows: Subflows,
    pub record: SocketRecord,
}

/// An open descriptor of a socket.
struct Found {
    fd: u32,
    file: u64,
    inode: u64,
}

/// How often each of the six loops goes round: together 2,985,984 steps, enough for every slot and for some subflows of
/// every socket. A verifier follows each round, so short loops take it a fraction of the time of one long one.
const ROUNDS: u64 = 12;
/// What a function returns that has reached the end of the table.
const DONE: u32 = 1;

impl Walk {
    /// Begins at the first descriptor of the table `files`.
    #[inline(always)]
    pub fn begin(&mut self, files: u64, process: ProcessKey, time: u64) {
        let fdt: u64 = read_or_zero(files, FILES_FDT.load());
        let slots: u32 = read_or_zero(fdt, FDT_MAX_FDS.load());
        self.process = process;
        self.time = time;
        self.fds = read_or_zero(fdt, FDT_FD.load());
        self.open_fds = read_or_zero(fdt, FDT_OPEN_FDS.load());
        self.open = 0;
        self.words = slots.div_ceil(BITS);
        self.word = 0;
        self.sockets = 0;
        self.not_recorded = 0;
        self.subflows.end();
        self.slots_skipped = slots.saturating_sub(MAX_SLOTS);
        if self.words > MAX_SLOTS / BITS {
            self.words = MAX_SLOTS / BITS;
        }
    }

    /// The next open descriptor that is a socket; `Some(None)` for another one, or for 64 empty slots.
    #[inline(always)]
    fn next(&mut self) -> Option<Option<Found>> {
        if self.open == 0 {
            if self.word >= self.words {
                return None;
            }
            self.open = read_or_zero(self.open_fds + u64::from(self.word) * 8, 0);
            self.word += 1;
            if self.open == 0 {
                return Some(None);
            }
        }
        let bit = self.open.trailing_zeros();
        self.open &= self.open - 1;
        if self.sockets >= MAX_SOCKETS.load() {
            self.slots_skipped += 1;
            return Some(None);
        }
        let fd = (self.word - 1) * BITS + bit;
        let file: u64 = read_or_zero(self.fds + u64::from(fd) * 8, 0);
        let Some((inode, sk)) = file::socket(file) else {
            return Some(None);
        };
        self.sk = sk;
        Some(Some(Found { fd, file, inode }))
    }

    /// Records the socket that was read last.
    #[inline(always)]
    fn keep(&mut self, Found { fd, file, inode }: Found) {
        let record = &mut self.record;
        record.fd = fd;
        record.fd_count = 1;
        record.inode = read_or_zero(inode, INODE_INO.load());
        record.references = references(file);
        let key = &mut self.key;
        key.sk = self.sk;
        key.time = self.time;
        key.tgid = self.process.tgid;
        key.origin = ORIGIN_INVENTORY;
        match inventory::keep(key, record) {
            Kept::New => {
                self.sockets += 1;
                self.subflows.begin(key, record.protocol);
            }
            // The socket has another descriptor already (dup).
            Kept::Before => inventory::add_fd(key, fd),
            Kept::No => self.not_recorded += 1,
        }
    }

    /// Counts what was not looked at when the steps did not suffice.
    #[inline(always)]
    fn give_up(&mut self) {
        self.slots_skipped += self.open.count_ones() + self.words.saturating_sub(self.word) * BITS;
    }
}

/// Walks to the end of the table.
#[inline(always)]
pub fn walk() {
    if rounds(fd_table_loop_5) == 0
        && let Some(walk) = current()
    {
        walk.give_up();
    }
}

/// Goes round until `round` returns [`DONE`], and returns that; else 0.
#[inline(always)]
fn rounds(round: extern "C" fn() -> u32) -> u32 {
    let mut left = ROUNDS;
    while left != 0 {
        if round() == DONE {
            return DONE;
        }
        // A compiler that knew how often it goes round would write the calls one after the other, and a verifier
        // looks into each of them for the depth of the stack. Of 64 bits, because it forgets smaller ones on the stack.
        left = black_box(left - 1);
    }
    0
}

/// Defines a global function that goes round with another one. It returns [`DONE`] at the end of the table.
macro_rules! many {
    ($name:ident: $of:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name() -> u32 {
            rounds($of)
        }
    };
}

many!(fd_table_loop_1: step);
many!(fd_table_loop_2: fd_table_loop_1);
many!(fd_table_loop_3: fd_table_loop_2);
many!(fd_table_loop_4: fd_table_loop_3);
many!(fd_table_loop_5: fd_table_loop_4);

#[inline(always)]
extern "C" fn step() -> u32 {
    if mptcp::subflow_step() == 0 {
        fd_table_step()
    } else {
        0
    }
}

/// Looks at the next open descriptor, and records it if it is a TCP or MPTCP socket; or finds 64 empty slots. Returns
/// [`DONE`] at the end of the table.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fd_table_step() -> u32 {
    let Some(next) = current().and_then(Walk::next) else {
        return DONE;
    };
    if let Some(found) = next
        && fd_table_read_socket() != 0
        && let Some(walk) = current()
    {
        walk.keep(found);
    }
    0
}

/// Reads the socket at the walk's `sk` into its record. Returns 0 if it is no TCP or MPTCP socket. Nobody may have a
/// reference to the walk meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fd_table_read_socket() -> u32 {
    let Some(Walk { sk, record, .. }) = current() else {
        return 0;
    };
    let Some((family, protocol)) = socket::tcp_kind(*sk) else {
        return 0;
    };
    socket::fill(record, *sk, family, protocol);
    1
}

/// This CPU's walk. No other program uses it, and none is preempted here.
#[inline(always)]
pub fn current() -> Option<&'static mut Walk> {
    // SAFETY: The element lives as long as the program, and only one walk at a time runs on a CPU.
    WALK.get_ptr_mut(0).map(|walk| unsafe { &mut *walk })
}

/// References to a `struct file`. `f_ref` (6.13 and later) counts from 0: include/linux/file_ref.h.
#[inline(always)]
fn references(file: u64) -> u32 {
    if FILE_REF.load() == MISSING {
        read_or_zero::<u64>(file, FILE_COUNT.load()) as u32
    } else {
        read_or_zero::<u64>(file, FILE_REF.load()) as u32 + 1
    }
}
