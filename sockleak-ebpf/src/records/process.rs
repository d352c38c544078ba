//! Processes that are followed, and how they died.

/// Who sent a signal, when, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SignalSent {
    /// When it was generated; 0 if none was.
    pub time: u64,
    /// Signal number.
    pub signal: u32,
    /// tgid of the sending process; 0 if the kernel sent it.
    pub sender: u32,
    /// `comm` of the sending thread, if a process sent it.
    pub sender_comm: [u8; 16],
}

/// A process that is followed. Value of `WATCHED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Watched {
    /// `start_boottime` of the thread-group leader, which tells a reused PID from this process.
    /// 0 for a process that user space put here: it holds a pidfd instead.
    pub start: u64,
    /// [`WATCHED_IO_URING`], [`WATCHED_SHARES_FILES`] and [`WATCHED_MANY_TABLES`].
    pub flags: u32,
    /// tgid of the process that forked this one; 0 if it was given by the user.
    pub parent: u32,
    /// The last SIGKILL.
    pub kill: SignalSent,
    /// The last signal whose default action dumps core, sent while that was its action.
    pub core: SignalSent,
    /// The last other signal whose default action ends the process, sent while that was its action.
    pub term: SignalSent,
    /// When a core-dumping signal was delivered that has no handler, that is when the dump began; 0 if never.
    pub dump_began: u64,
    /// That signal.
    pub dump_signal: u32,
    /// Part of the address of the fd table of the first thread that ended with the process; 0 before that.
    pub table: u32,
}

/// [`Watched::flags`]: a thread of the process that already exited had an io_uring.
pub const WATCHED_IO_URING: u32 = 1;
/// [`Watched::flags`]: it was made with CLONE_FILES and shares its parent's fd table.
pub const WATCHED_SHARES_FILES: u32 = 2;
/// [`Watched::flags`]: threads that ended with the process had different fd tables, of which one is walked.
pub const WATCHED_MANY_TABLES: u32 = 4;

/// A process, safe against PID reuse. Key of `DEATHS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProcessKey {
    /// `start_boottime` of the thread-group leader.
    pub start: u64,
    /// Process id.
    pub tgid: u32,
    /// Padding, always 0.
    pub _pad: u32,
}

/// How a process died. Value of `DEATHS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Death {
    /// The moment of `sched_process_exit`. The keys of the inventory carry it too.
    pub time: u64,
    /// `task_struct.exit_code` of the thread-group leader, encoded as a wait status.
    pub exit_code: u32,
    /// `signal_struct.group_exit_code`, encoded as a wait status.
    pub group_exit_code: u32,
    /// `signal_struct.flags`; [`SIGNAL_GROUP_EXIT`] says which of the two codes holds.
    pub signal_flags: u32,
    /// [`DEATH_OOM`] and [`DEATH_IO_URING`].
    pub flags: u32,
    /// `files_struct.count`: more than 1 when another process (or a thread that has not come here yet) shares the fd table.
    pub files_users: u32,
    /// Process id in the process's own PID namespace.
    pub ns_pid: u32,
    /// Sockets in the inventory.
    pub sockets: u32,
    /// Sockets that did not fit into the maps.
    pub not_recorded: u32,
    /// Open slots of the fd table that were not looked at.
    pub slots_skipped: u32,
    /// How long the walk over the fd table took, in nanoseconds.
    pub walk_ns: u32,
    /// `comm` of the thread-group leader.
    pub comm: [u8; 16],
    /// What was known of the process while it lived; its entry in `WATCHED` ends with it.
    pub watched: Watched,
}

/// `signal_struct.flags`: the group exit code holds (include/linux/sched/signal.h, equal from 5.10 to 7.3).
pub const SIGNAL_GROUP_EXIT: u32 = 0x4;
/// [`Death::flags`]: the OOM killer chose this process (`signal_struct.oom_mm` is set).
pub const DEATH_OOM: u32 = 1;
/// [`Death::flags`]: a thread of the process used io_uring, which can hold sockets that are in no fd table.
pub const DEATH_IO_URING: u32 = 2;

const _: () = {
    assert!(size_of::<SignalSent>() == 32);
    assert!(size_of::<Watched>() == 128);
    assert!(size_of::<ProcessKey>() == 16);
    assert!(size_of::<Death>() == 192);
};
