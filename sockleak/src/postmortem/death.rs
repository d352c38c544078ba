//! How a process died.

use std::time::Duration;

use jiff::Timestamp;

/// A death, by the rule of `wait_task_zombie` (kernel/exit.c): `group_exit_code` if SIGNAL_GROUP_EXIT
/// is set, else the `exit_code` of the last thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    pub time: Timestamp,
    pub cause: Cause,
    /// The OOM killer chose the process.
    pub oom: bool,
    /// The process that sent the fatal signal; `None` if the kernel did, or if it is not known.
    pub sent_by: Option<Sender>,
    /// From the delivery of the signal that dumps core to the exit event; `None` without a dump.
    pub core_dump: Option<Duration>,
    /// The first fatal signal, where a later SIGKILL ended its core dump and replaced it.
    pub dump_interrupted: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `exit(code)`, 0 to 255.
    Exit { code: u8 },
    /// A signal, by number.
    Signal { signal: u8, core_dumped: bool },
}

/// A process that sent a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub pid: u32,
    pub comm: String,
}
