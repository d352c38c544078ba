//! A watched process, as the maps have it.

use sockleak_ebpf::{WATCHED_IO_URING, WATCHED_MANY_TABLES, WATCHED_SHARES_FILES, Watched as WatchedRecord};

/// What is known of a living watched process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// When it began to live, in boot-time nanoseconds; 0 for a process that was watched by its PID.
    pub start: u64,
    /// The process that forked it; 0 if that is not known.
    pub parent: u32,
    /// It was made with CLONE_FILES and shares its parent's fd table.
    pub shares_files: bool,
    /// A thread of it that exited already used io_uring.
    pub io_uring: bool,
    /// Threads that ended with it had fd tables of their own, of which one was walked.
    pub many_tables: bool,
}

impl Watched {
    pub(super) const fn new(record: &WatchedRecord) -> Self {
        Self {
            start: record.start,
            parent: record.parent,
            shares_files: record.flags & WATCHED_SHARES_FILES != 0,
            io_uring: record.flags & WATCHED_IO_URING != 0,
            many_tables: record.flags & WATCHED_MANY_TABLES != 0,
        }
    }
}
