//! How a process died.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A death, by the rule of `wait_task_zombie` (kernel/exit.c): `group_exit_code` if SIGNAL_GROUP_EXIT
/// is set, else the `exit_code` of the thread-group leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// `exit(code)`, 0 to 255.
    Exit { code: u8 },
    /// A signal, by number.
    Signal { signal: u8, core_dumped: bool },
}

/// A process that sent a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    pub pid: u32,
    pub comm: String,
}

/// What the kernel said about an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The moment of `sched_process_exit`.
    pub time: Timestamp,
    /// `task_struct.exit_code` of the thread-group leader, encoded as a wait status.
    pub exit_code: u32,
    /// `signal_struct.group_exit_code`, encoded as a wait status.
    pub group_exit_code: u32,
    /// SIGNAL_GROUP_EXIT is set in `signal_struct.flags`.
    pub group_exit: bool,
    /// The OOM killer chose the process (`signal_struct.oom_mm`).
    pub oom: bool,
    /// The last SIGKILL.
    pub kill: Option<SignalSent>,
    /// The last signal that dumps core.
    pub core: Option<SignalSent>,
    /// The last other signal that ends a process.
    pub term: Option<SignalSent>,
    /// When which core-dumping signal was delivered that had no handler.
    pub dump_began: Option<(Timestamp, u8)>,
}

/// A signal that was generated for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalSent {
    pub signal: u8,
    /// The process that sent it; `None` if the kernel did.
    pub sender: Option<Sender>,
}

const SIGKILL: u8 = 9;

/// SIG_KERNEL_COREDUMP_MASK of include/linux/signal.h: QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
const CORE_SIGNALS: [u8; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];

impl Death {
    /// Decides how a process died.
    #[must_use]
    pub fn decide(exit: &Exit) -> Self {
        let status = if exit.group_exit {
            exit.group_exit_code
        } else {
            exit.exit_code
        };
        let signal = (status & 0x7f) as u8;
        let core_dumped = status & 0x80 != 0;
        let cause = if signal == 0 {
            Cause::Exit {
                code: (status >> 8 & 0xff) as u8,
            }
        } else {
            Cause::Signal { signal, core_dumped }
        };
        // complete_signal() and coredump_wait() both end in a group exit, and a SIGKILL during the dump
        // overwrites its code: only the delivery of the first signal still tells of it.
        let dump = exit
            .dump_began
            .filter(|&(_, dumped)| (core_dumped && dumped == signal) || signal == SIGKILL);
        Self {
            time: exit.time,
            cause,
            oom: exit.oom,
            sent_by: exit.sent(signal).and_then(|sent| sent.sender.clone()),
            core_dump: dump
                .map(|(began, _)| Duration::try_from(exit.time.duration_since(began)).unwrap_or_default()),
            dump_interrupted: dump
                .filter(|_| signal == SIGKILL)
                .map(|(_, interrupted)| interrupted),
        }
    }
}

impl Exit {
    /// What was recorded of that signal, if it was the last of its class.
    fn sent(&self, signal: u8) -> Option<&SignalSent> {
        let class = match signal {
            SIGKILL => &self.kill,
            _ if CORE_SIGNALS.contains(&signal) => &self.core,
            _ => &self.term,
        };
        class.as_ref().filter(|sent| sent.signal == signal && signal != 0)
    }
}

/// The name of a signal without its SIG, by the numbers of include/uapi/asm-generic/signal.h; `None` for
/// real-time signals.
#[must_use]
pub fn signal_name(signal: u8) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    NAMES.get(usize::from(signal).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::at;

    fn exit(exit_code: u32, group_exit_code: u32, group_exit: bool) -> Exit {
        Exit {
            time: at(0),
            exit_code,
            group_exit_code,
            group_exit,
            oom: false,
            kill: None,
            core: None,
            term: None,
            dump_began: None,
        }
    }

    fn sent(signal: u8, pid: Option<u32>) -> Option<SignalSent> {
        let sender = pid.map(|pid| Sender {
            pid,
            comm: "bash".into(),
        });
        Some(SignalSent { signal, sender })
    }

    const fn signal(signal: u8, core_dumped: bool) -> Cause {
        Cause::Signal { signal, core_dumped }
    }

    #[test]
    fn codes_mean_what_wait_would_say() {
        let cases = [
            ("exit_group(3)", exit(0x300, 0x300, true), Cause::Exit { code: 3 }),
            (
                "exit_group(3), one thread, 5.10",
                exit(0x300, 0, false),
                Cause::Exit { code: 3 },
            ),
            ("exit_group(0)", exit(0, 0, true), Cause::Exit { code: 0 }),
            ("SIGKILL", exit(9, 9, true), signal(9, false)),
            ("SIGTERM", exit(15, 15, true), signal(15, false)),
            ("SIGSEGV, RLIMIT_CORE 0", exit(0xb, 0xb, true), signal(11, false)),
            (
                "SIGSEGV, not dumpable, 5.10",
                exit(0xb, 0, false),
                signal(11, false),
            ),
            (
                "SIGSEGV, dumped, last thread a sibling",
                exit(0xb, 0x8b, true),
                signal(11, true),
            ),
            ("SIGSEGV, dumped, 5.10", exit(0x8b, 0, false), signal(11, true)),
            (
                "pthread_exit of the last thread",
                exit(0x700, 0, false),
                Cause::Exit { code: 7 },
            ),
            (
                "leader left with 0, then SIGKILL",
                exit(0, 9, true),
                signal(9, false),
            ),
            ("seccomp", exit(0x1f, 0x1f, true), signal(31, false)),
            (
                "execve failed in a shell",
                exit(0x7f00, 0x7f00, true),
                Cause::Exit { code: 127 },
            ),
        ];
        for (name, exit, cause) in cases {
            assert_eq!(Death::decide(&exit).cause, cause, "{name}");
        }
    }

    #[test]
    fn the_sender_is_that_of_the_fatal_signal() {
        let mut killed = exit(9, 9, true);
        killed.kill = sent(9, Some(77));
        killed.term = sent(15, Some(78));
        assert_eq!(Death::decide(&killed).sent_by.map(|sender| sender.pid), Some(77));

        let mut hung_up = exit(1, 1, true);
        hung_up.term = sent(15, Some(78));
        assert_eq!(
            Death::decide(&hung_up).sent_by,
            None,
            "SIGTERM came, SIGHUP killed"
        );

        let mut crashed = exit(0xb, 0xb, true);
        crashed.core = sent(11, None);
        assert_eq!(Death::decide(&crashed).sent_by, None, "the kernel sent it");

        let mut left = exit(0, 0, true);
        left.term = sent(0, Some(79));
        assert_eq!(Death::decide(&left).sent_by, None, "nothing killed it");
    }

    #[test]
    fn a_dump_lasts_from_the_delivery_to_the_exit() {
        let mut dumped = exit(0x8b, 0x8b, true);
        dumped.dump_began = Some((at(-4200), 11));
        let death = Death::decide(&dumped);
        assert_eq!(death.core_dump, Some(Duration::from_millis(4200)));
        assert_eq!(death.dump_interrupted, None);

        let mut without = exit(0xb, 0xb, true);
        without.dump_began = Some((at(-1), 11));
        assert_eq!(Death::decide(&without).core_dump, None, "RLIMIT_CORE is 0");
    }

    #[test]
    fn a_sigkill_during_the_dump_does_not_hide_the_first_signal() {
        let mut interrupted = exit(9, 9, true);
        interrupted.dump_began = Some((at(-1000), 11));
        let death = Death::decide(&interrupted);
        assert_eq!(death.cause, signal(9, false));
        assert_eq!(death.dump_interrupted, Some(11));
        assert_eq!(death.core_dump, Some(Duration::from_secs(1)));
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(0), None);
        assert_eq!(signal_name(9), Some("KILL"));
        assert_eq!(signal_name(11), Some("SEGV"));
        assert_eq!(signal_name(31), Some("SYS"));
        assert_eq!(signal_name(34), None);
    }

    proptest! {
        #[test]
        fn any_code_is_decided(exit_code: u32, group_exit_code: u32, group_exit: bool, began in -10_000i64..10_000) {
            let mut exit = exit(exit_code, group_exit_code, group_exit);
            exit.dump_began = Some((at(began), 11));
            let death = Death::decide(&exit);
            prop_assert!(death.dump_interrupted.is_none() || death.core_dump.is_some());
        }
    }
}
