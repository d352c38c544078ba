//! The process that is watched.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One process of all that ever have its PID: no two of them live at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    pub pid: u32,
    /// A moment of its life in boot-time nanoseconds, before which it is of no interest: its start, its fork, or when it
    /// was found.
    pub since: u64,
}

/// What is known of a process besides its sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Process id in its own PID namespace; `None` if it could not be read in time.
    pub ns_pid: Option<u32>,
    /// `comm` of the thread-group leader. Not escaped: output does that.
    pub comm: String,
    /// Path of the executable, while it could be read.
    pub exe: Option<String>,
    /// Path in the cgroup v2 hierarchy (or of the first v1 hierarchy).
    pub cgroup: Option<String>,
    pub started: Option<Timestamp>,
    /// Given by the user with `--pid` or as COMMAND; otherwise a child that was followed.
    pub target: bool,
}

impl Process {
    /// A process of which nothing but its PID is known.
    #[must_use]
    pub const fn unknown(pid: u32) -> Self {
        Self {
            pid,
            ns_pid: None,
            comm: String::new(),
            exe: None,
            cgroup: None,
            started: None,
            target: false,
        }
    }
}
