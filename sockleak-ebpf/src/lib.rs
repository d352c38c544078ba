//! The ABI between the BPF programs and user space.
//!
//! Both sides compile this file: the programs write these records into maps, user space decodes
//! them field by field. Everything is plain integers in C layout without padding, so a record has
//! exactly one meaning whatever bytes it holds; the sizes are checked at compile time.
//!
//! Times are nanoseconds of `CLOCK_BOOTTIME` (`bpf_ktime_get_boot_ns`), which is also the clock of
//! `task_struct.start_boottime`. Ports are in host byte order, addresses in network byte order.
//! Process ids are those of the initial PID namespace.

#![no_std]

mod fields;
mod records;

pub use fields::MISSING;
pub use records::*;

/// Number of a helper that no kernel has: user space puts a call of the kernel's `bpf_preempt_disable` in the
/// place of every call of it, or nothing where programs are not preempted.
pub const PREEMPT_DISABLE: usize = 0x7fff_0001;
/// The same for `bpf_preempt_enable`.
pub const PREEMPT_ENABLE: usize = 0x7fff_0002;
/// The same for `bpf_local_irq_save`.
pub const LOCAL_IRQ_SAVE: usize = 0x7fff_0003;
/// The same for `bpf_local_irq_restore`.
pub const LOCAL_IRQ_RESTORE: usize = 0x7fff_0004;
/// The same for `bpf_rdonly_cast`, where [`HAS_CASTS`](globals::HAS_CASTS) is set.
pub const RDONLY_CAST: usize = 0x7fff_0005;
/// Stands for the type id of `struct task_struct`, which user space puts in its place.
pub const TASK_STRUCT: u32 = 0x7fff_0006;

/// Names of the maps, as user space asks for them. The statics of `maps.rs` carry these names.
pub mod maps {
    /// Maps that can be as small as can be where nothing is traced.
    pub const OF_THE_TRACER: [&str; 7] = [WATCHED, WATCHED_BYTES, DEATHS, SOCKETS, ASIDE, EXTRA_FDS, EVENTS];
    /// Hash: tgid (`u32`) to [`Watched`](crate::Watched).
    pub const WATCHED: &str = "WATCHED";
    /// Array: one byte for all tgids with the same remainder by [`WATCHED_BYTES_SIZE`], 1 before one of them is put
    /// into `WATCHED`.
    pub const WATCHED_BYTES: &str = "WATCHED_BYTES";
    /// Entries of [`WATCHED_BYTES`].
    pub const WATCHED_BYTES_SIZE: u32 = 4096;
    /// Hash: [`ProcessKey`](crate::ProcessKey) to [`Death`](crate::Death).
    pub const DEATHS: &str = "DEATHS";
    /// Hash, preallocated: address of a `struct sock` (`u64`) to the [`SocketRecord`](crate::SocketRecord) that its
    /// changes of state go to.
    pub const SOCKETS: &str = "SOCKETS";
    /// Hash: [`SocketKey`](crate::SocketKey) to [`SocketRecord`](crate::SocketRecord), for records whose place in
    /// `SOCKETS` another one has: of processes that share a socket all but the first to die, and of sockets whose
    /// memory belongs to another one by now. And for those that `SOCKETS` has no room for, by
    /// [`SocketKey::place`](crate::SocketKey::place).
    pub const ASIDE: &str = "ASIDE";
    /// Hash: [`FdKey`](crate::FdKey) to `u8`, for every descriptor of a socket beyond its first.
    pub const EXTRA_FDS: &str = "EXTRA_FDS";
    /// Ring buffer of events, each beginning with an [`EventHeader`](crate::EventHeader).
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array of `u64`, indexed by [`counter`](crate::counter).
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of one [`Bitmap`](crate::Bitmap): which local ports the iterators are asked for.
    pub const PORTS: &str = "PORTS";
    /// Array of one [`Bitmap`](crate::Bitmap): the lowest 16 bits of the inodes of the sockets that [`programs::PORT_FILES`] is
    /// asked for.
    pub const INODES: &str = "INODES";
}

/// Names of the programs. Each is the name of the tracepoint that it attaches to, but for [`ITERATORS`](programs::ITERATORS).
pub mod programs {
    /// Every program of a tracepoint, in the order in which they are attached: the walk at exit comes last, so that
    /// whatever it records is already being followed.
    pub const ALL: [&str; 8] = [
        INET_SOCK_SET_STATE,
        TCP_SEND_RESET,
        TCP_RECEIVE_RESET,
        SIGNAL_GENERATE,
        SIGNAL_DELIVER,
        SCHED_PROCESS_FORK,
        SCHED_PROCESS_EXEC,
        SCHED_PROCESS_EXIT,
    ];
    /// Copies of programs, with the tracepoints that they attach to: for kernels that preempt programs.
    pub const COPIES: [(&str, &str); 6] = [
        ("inet_sock_set_state_2", INET_SOCK_SET_STATE),
        ("tcp_send_reset_2", TCP_SEND_RESET),
        ("tcp_receive_reset_2", TCP_RECEIVE_RESET),
        ("sched_process_fork_2", SCHED_PROCESS_FORK),
        ("sched_process_exec_2", SCHED_PROCESS_EXEC),
        ("sched_process_exit_2", SCHED_PROCESS_EXIT),
    ];
    /// The iterators, with what the kernel calls that which they visit. They run when they are read.
    pub const ITERATORS: [(&str, &str); 2] = [(TCP_PORT_OWNERS, "tcp"), (PORT_FILES, "task_file")];
    /// Every TCP socket of a network namespace that has one of the ports: [`PortRecord`](crate::PortRecord).
    pub const TCP_PORT_OWNERS: &str = "tcp_port_owners";
    /// Every descriptor of a TCP or MPTCP socket that has one of the ports or may have one of the inodes:
    /// [`PortFileRecord`](crate::PortFileRecord).
    pub const PORT_FILES: &str = "port_files";
    /// A TCP or MPTCP socket changes its state.
    pub const INET_SOCK_SET_STATE: &str = "inet_sock_set_state";
    /// The kernel sends an RST.
    pub const TCP_SEND_RESET: &str = "tcp_send_reset";
    /// A connection is reset, by the peer or by data that arrived after close.
    pub const TCP_RECEIVE_RESET: &str = "tcp_receive_reset";
    /// A signal is sent.
    pub const SIGNAL_GENERATE: &str = "signal_generate";
    /// A signal reaches the thread that handles it, or dies of it.
    pub const SIGNAL_DELIVER: &str = "signal_deliver";
    /// A process or thread is made.
    pub const SCHED_PROCESS_FORK: &str = "sched_process_fork";
    /// A process becomes another program.
    pub const SCHED_PROCESS_EXEC: &str = "sched_process_exec";
    /// A thread ends; its sockets are still open.
    pub const SCHED_PROCESS_EXIT: &str = "sched_process_exit";
}

/// Names of the read-only globals that are not struct offsets.
pub mod globals {
    /// `u8`: `sched_process_exit` has the argument `group_dead` (6.16 and later).
    pub const HAS_GROUP_DEAD: &str = "HAS_GROUP_DEAD";
    /// `u8`: `tcp_send_reset` has the argument `reason` (6.12 and later).
    pub const HAS_RESET_REASON: &str = "HAS_RESET_REASON";
    /// `u8`: tracing programs may call `bpf_get_socket_cookie` (absent in 5.10).
    pub const HAS_SOCKET_COOKIE: &str = "HAS_SOCKET_COOKIE";
    /// `u8`: `bind()` compares the uid of the socket's inode, as `sock_i_uid` tells it (before 6.17).
    pub const HAS_SOCK_I_UID: &str = "HAS_SOCK_I_UID";
    /// `u8`: iterators may call `bpf_sock_from_file` (5.11 and later).
    pub const HAS_SOCK_FROM_FILE: &str = "HAS_SOCK_FROM_FILE";
    /// `u8`: the copies of the programs are attached too.
    pub const HAS_COPIES: &str = "HAS_COPIES";
    /// `u8`: the programs may cast addresses, and the number of the processor takes no call (x86-64, 6.10 and later).
    pub const HAS_CASTS: &str = "HAS_CASTS";
    /// `u8`: children of watched processes are watched too.
    pub const FOLLOW_CHILDREN: &str = "FOLLOW_CHILDREN";
    /// `u32`: size of `struct k_sigaction` in bytes.
    pub const K_SIGACTION_SIZE: &str = "K_SIGACTION_SIZE";
    /// `u32`: the walk at exit stops after this many sockets.
    pub const MAX_SOCKETS: &str = "MAX_SOCKETS";
}

/// Indices into the map [`maps::COUNTERS`].
pub mod counter {
    /// Events that did not fit into the ring.
    pub const EVENTS_LOST: u32 = 0;
    /// Sockets that a live process closed and that did not fit into `SOCKETS` or `ASIDE`.
    pub const FOLLOW_FAILED: u32 = 1;
    /// Processes that did not fit into `WATCHED`, or deaths that did not fit into `DEATHS`.
    pub const PROCESS_FAILED: u32 = 2;
    /// Records that were set aside, each counted once it is there and before it gives up the place that it may have
    /// had: while there were none, nobody has to look for them.
    pub const ASIDE: u32 = 3;
    /// Descriptors for `EXTRA_FDS`, each counted before it is there, and also if there is no room.
    pub const EXTRA_FDS: u32 = 4;
    /// Records that went from one key of `ASIDE` to another one: who visits all of them may have missed these.
    pub const MOVED: u32 = 5;
    /// First records of their addresses for `ASIDE`, counted like the descriptors.
    pub const OVERFLOWN: u32 = 6;
    /// How many counters there are.
    pub const COUNT: u32 = 7;
}
