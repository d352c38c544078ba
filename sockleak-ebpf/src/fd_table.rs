//! The walk over a dying process's fd table: the exact inventory.
//!
//! It follows the bitmap of open descriptors, so empty slots cost a 64th of a step.
//!
//! A million steps are no loop that a verifier could follow one by one, and `bpf_loop` is not in 5.10. But a
//! global function (one with external linkage and BTF, 5.6 and later) is verified once, and a call of it is one
//! instruction to the verifier: so a step is such a function, and hundreds of steps are another one.

use aya_ebpf::{Global, macros::map, maps::PerCpuArray};
use sockleak_ebpf::{MISSING, ORIGIN_INVENTORY, ORIGIN_SUBFLOW, ProcessKey, SocketKey, SocketRecord};

use crate::file;
use crate::inventory::{self, Kept};
use crate::memory::read_or_zero;
use crate::mptcp::Subflows;
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
    /// The open descriptor that was found last.
    fd: u32,
    /// Its file.
    file: u64,
    inode: u64,
    subflows: Subflows,
    /// Of the socket that was found last.
    key: SocketKey,
    record: SocketRecord,
}

/// The walk over the fd table of a dying process, on each CPU.
#[map]
static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// What a step of a walk comes to.
enum Found {
    Socket,
    /// Another file, 64 empty slots, or the end of a list of subflows.
    Nothing,
    /// The end of the table.
    End,
}

/// How often each of the six loops goes round: together 2,985,984 steps, enough for every slot and for some subflows of
/// every socket. A verifier follows each round, so short loops take it a fraction of the time of one long one. It knows
/// the number, and the compiler does not: that one would write the calls one after the other.
static ROUNDS: Global<u64> = Global::new(12);
/// What a function returns that has reached the end of the table.
const DONE: u64 = 1;

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

    /// Finds the next subflow of the MPTCP socket that was found last, or else the next open descriptor.
    #[inline(always)]
    fn next(&mut self) -> Found {
        if self.subflows.has_next() {
            return match self.subflows.next() {
                Some(sk) => self.found(sk, ORIGIN_SUBFLOW),
                None => Found::Nothing,
            };
        }
        if self.open == 0 {
            if self.word >= self.words {
                return Found::End;
            }
            self.open = read_or_zero(self.open_fds + u64::from(self.word) * 8, 0);
            self.word += 1;
            if self.open == 0 {
                return Found::Nothing;
            }
        }
        let bit = self.open.trailing_zeros();
        self.open &= self.open - 1;
        if self.sockets >= MAX_SOCKETS.load() {
            self.slots_skipped += 1;
            return Found::Nothing;
        }
        self.fd = (self.word - 1) * BITS + bit;
        self.file = read_or_zero(self.fds + u64::from(self.fd) * 8, 0);
        let Some((inode, sk)) = file::socket(self.file) else {
            return Found::Nothing;
        };
        self.inode = inode;
        self.found(sk, ORIGIN_INVENTORY)
    }

    #[inline(always)]
    fn found(&mut self, sk: u64, origin: u32) -> Found {
        self.key.sk = sk;
        self.key.time = self.time;
        self.key.tgid = self.process.tgid;
        self.key.origin = origin;
        Found::Socket
    }

    /// Records the socket that was found and read last, and follows it from now on.
    #[inline(always)]
    fn keep(&mut self) {
        let Self { key, record, .. } = self;
        if key.origin == ORIGIN_SUBFLOW {
            record.msk = self.subflows.owner();
        } else {
            record.fd = self.fd;
            record.fd_count = 1;
            record.inode = read_or_zero(self.inode, INODE_INO.load());
            record.references = references(self.file);
        }
        let kept = inventory::keep(key, record);
        // Asked again, because a verifier that knew the answer of before would have looked at all of `keep` twice.
        match (kept, key.origin == ORIGIN_SUBFLOW) {
            (Kept::New, false) => {
                self.sockets += 1;
                self.subflows.begin(key, record.protocol);
            }
            // The socket has another descriptor already (dup).
            (Kept::Before, false) => inventory::add_fd(key, self.fd),
            (Kept::No, false) => self.not_recorded += 1,
            (Kept::No, true) => self.subflows.end(),
            (Kept::New | Kept::Before, true) => {}
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
fn rounds(round: extern "C" fn() -> u64) -> u64 {
    let mut left = ROUNDS.load();
    while left != 0 {
        if round() == DONE {
            return DONE;
        }
        left -= 1;
    }
    0
}

/// Defines a global function that goes round with another one. It returns [`DONE`] at the end of the table.
macro_rules! many {
    ($name:ident: $of:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name() -> u64 {
            rounds($of)
        }
    };
}

many!(fd_table_loop_1: fd_table_step);
many!(fd_table_loop_2: fd_table_loop_1);
many!(fd_table_loop_3: fd_table_loop_2);
many!(fd_table_loop_4: fd_table_loop_3);
many!(fd_table_loop_5: fd_table_loop_4);

/// Looks at the next open descriptor or the next subflow, and records it if it is a TCP or MPTCP socket; or finds 64 empty
/// slots. Returns [`DONE`] at the end of the table.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fd_table_step() -> u64 {
    match current().map_or(Found::End, Walk::next) {
        Found::End => return DONE,
        Found::Nothing => return 0,
        Found::Socket => {}
    }
    let read = fd_table_read_socket() != 0 && fd_table_read_options() != 0;
    if let Some(walk) = current() {
        if read {
            walk.keep();
        } else if walk.key.origin == ORIGIN_SUBFLOW {
            walk.subflows.end();
        }
    }
    0
}

/// Reads the socket that was found last into the walk's record. Returns 0 if it is no TCP or MPTCP socket. Nobody may have
/// a reference to the walk meanwhile.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fd_table_read_socket() -> u64 {
    let Some(Walk { key, record, .. }) = current() else {
        return 0;
    };
    let Some((family, protocol)) = socket::tcp_kind(key.sk) else {
        return 0;
    };
    socket::fill(record, key.sk, family, protocol);
    1
}

/// Completes the options of the socket that was read last. Returns 1. It is a function of its own because the stack of the
/// other one has no room for more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fd_table_read_options() -> u64 {
    if let Some(Walk { key, record, .. }) = current() {
        record.flags |= socket::nonlocal(key.sk);
    }
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
