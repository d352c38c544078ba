//! What could not be seen, as facts. The words for them are chosen where they are printed.

use serde::{Deserialize, Serialize};

/// Something that a report therefore cannot tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlindSpot {
    /// The exit hook did not see the death: how the process died and what it held is not known.
    ExitUnseen,
    /// Threads of the process had fd tables of their own, of which one was walked.
    OtherTables,
    /// The process used io_uring, which can hold sockets that are in no fd table.
    IoUring,
    /// Subflows of so many MPTCP sockets were not looked at.
    SubflowsSkipped { sockets: usize },
    /// A network namespace was not there any more.
    NetnsGone { netns: u32 },
    /// A network namespace may not be looked into, and why.
    NetnsRefused { netns: u32, why: String },
    /// So many TIME_WAITs are missing where `tcp_max_tw_buckets` was reached meanwhile: which of them for that reason is not
    /// known.
    TimeWaitsMissing { sockets: usize },
    /// The descriptors of so many processes could not be read: they may hold what nobody is named for.
    DescriptorsUnreadable { processes: usize },
    /// How many ports are left for `connect()` could not be counted.
    EphemeralUncounted,
    /// The kernel's list of who has a port could not be read, and why.
    PortReaderRefused { why: String },
    /// Tracing programs of this kernel make no socket cookies.
    NoCookies,
    /// BTF lacks what an optional field needs, and what that is.
    FieldMissing { problem: String },
    /// So many processes have network namespaces that may not be looked into.
    NamespacesRefused { processes: usize },
    /// The network namespace at this path could not be looked into, and why.
    NetnsUnread { path: String, why: String },
    /// This process is in a PID namespace of its own: processes outside are not named, and sockets that are only bound are
    /// not listed unless sock_diag does so.
    NestedPidNamespace { lists_bound: bool },
    /// The descriptors of so many processes may not be read: who has a socket may be missing.
    HoldersUnreadable { processes: usize },
    /// The kernel's list of who has the port that is asked for could not be read, and why.
    PortListRefused { lists_bound: bool, why: String },
}
