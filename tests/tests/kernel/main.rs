//! Crashes of real processes on the running kernel, each in its own network namespace.
//!
//! What a test lacks on this machine is the reason for which it is reported as ignored.

mod free;
mod port;
mod robustness;
mod trace;

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sockleak_tests::cgroup::SmallMemory;
use sockleak_tests::report::LOST_EVENTS;
use sockleak_tests::{
    descriptors, file_capabilities, io_uring, pidfd, programs, reused_pid, sandbox, sock_destroy,
    time_namespace,
};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    forbid_core_dumps();
    descriptors::allow_all().expect("up to the hard limit it is allowed");
    sandbox::collect_panics();
    let tests = [free::tests(), port::tests(), robustness::tests(), trace::tests()];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
}

/// What the test has to find on the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Root,
    Python,
    Ss,
    /// A process may have as many descriptors as the largest victims want.
    Descriptors,
    /// A process may have as many as the other large victims want.
    SomeDescriptors,
    Ipv6,
    Mptcp,
    /// A process may write a core.
    CoreFiles,
    /// Core files land in the working directory, where the test can remove them.
    LocalCoreFiles,
    /// The first kernel thread is in sight, so this is no container.
    KernelThreads,
    /// A program can be given capabilities.
    FileCapabilities,
    /// Control groups with a limit of memory can be made.
    MemoryCgroup,
    /// A new process can be given the number of a dead one.
    ChosenPid,
    /// What holds for the whole host may be set.
    OwnMachine,
    /// Nobody opens sockets meanwhile: they would get the memory of those that died, whose records then make room.
    NoOthers,
    /// The longest retransmission timeout can be set.
    RtoMax,
    PidfdGetfd,
    IoUring,
    /// A request of io_uring can put its file into a slot of the ring.
    DirectDescriptors,
    TimeNamespace,
    /// SOCK_DESTROY takes time-wait sockets.
    TimeWaitDestroy,
    /// It does not.
    NoTimeWaitDestroy,
    /// Devices may share the ports of a VRF.
    Vrf,
    /// The table of what the verifier does has a column for this kernel.
    KnownVerifier,
}

impl Need {
    /// The need in words, if it is not met.
    fn unmet(self) -> Option<&'static str> {
        let (is_met, words) = match self {
            // SAFETY: geteuid cannot fail and touches no memory.
            Self::Root => (unsafe { libc::geteuid() } == 0, "needs root"),
            Self::Python => (programs::python().is_some(), "needs Python 3.11 or later"),
            Self::Ss => (programs::has_ss(), "needs ss of iproute2"),
            Self::Descriptors => (
                descriptors::allowed() >= trace::complete::DESCRIPTORS,
                "needs 20,000 descriptors in a process (ulimit -Hn)",
            ),
            Self::SomeDescriptors => (
                descriptors::allowed() >= 11_000,
                "needs 11,000 descriptors in a process (ulimit -Hn)",
            ),
            Self::CoreFiles => (
                trace::core_dumps::are_allowed(),
                "needs core files (ulimit -Hc), which sudo forbids, and CAP_SYS_RESOURCE would allow",
            ),
            Self::Ipv6 => (Path::new("/proc/net/tcp6").exists(), "needs a kernel with IPv6"),
            Self::Mptcp => (
                Path::new("/proc/sys/net/mptcp").exists(),
                "needs a kernel with MPTCP",
            ),
            Self::LocalCoreFiles => (
                trace::core_dumps::are_local(),
                "needs core files in the working directory (kernel.core_pattern)",
            ),
            Self::RtoMax => (
                trace::moments::rto_max_is_there(),
                "needs a kernel with net.ipv4.tcp_rto_max_ms (6.15)",
            ),
            Self::PidfdGetfd => (pidfd::can_take_descriptors(), "needs pidfd_getfd"),
            Self::IoUring => (
                io_uring::is_there(),
                "needs io_uring, which the kernel lacks or kernel.io_uring_disabled switches off",
            ),
            Self::DirectDescriptors => (
                io_uring::has_direct_descriptors(),
                "needs direct descriptors of io_uring",
            ),
            Self::TimeNamespace => (time_namespace::is_there(), "needs a kernel with time namespaces"),
            Self::TimeWaitDestroy => (
                sock_destroy::takes_time_wait(),
                "needs a kernel that destroys time-wait sockets",
            ),
            Self::NoTimeWaitDestroy => (
                !sock_destroy::takes_time_wait(),
                "needs a kernel that destroys no time-wait sockets",
            ),
            Self::Vrf => (sandbox::has_vrf(), "needs a kernel with VRFs"),
            Self::KnownVerifier => (
                robustness::verifier::column().is_some(),
                "needs a kernel of sockleak-kernel/bpf/verifier.txt",
            ),
            // Those who need it wait for it.
            Self::NoOthers => (true, ""),
            Self::KernelThreads => (
                fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm == "kthreadd\n"),
                "needs to see kernel threads",
            ),
            Self::FileCapabilities => (
                file_capabilities::are_possible(),
                "needs a file system for temporary files that keeps capabilities, and is not mounted with nosuid",
            ),
            Self::MemoryCgroup => (
                SmallMemory::make().is_ok(),
                "needs a hierarchy of control groups with the memory controller",
            ),
            Self::ChosenPid => (
                reused_pid::is_possible(),
                "needs clone3() with set_tid, which takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN",
            ),
            Self::OwnMachine => (
                env::var_os("SOCKLEAK_TEST_VM").is_some(),
                "needs a machine of its own, for it sets what holds for the whole host; \
                 `cargo xtask test --kernel` has one",
            ),
        };
        (!is_met).then_some(words)
    }
}

/// The functions with their names.
macro_rules! named {
    ($($test:ident),+ $(,)?) => { &[$((concat!(module_path!(), "::", stringify!($test)), $test as fn())),+] };
}
use named;

/// Tests that need root and run each in its own network namespace.
fn sandboxed(needs: &'static [Need], tests: &[(&str, fn())]) -> Vec<Trial> {
    let trial = |&(name, test): &(&str, fn())| {
        let unmet = move || [Need::Root].iter().chain(needs).find_map(|need| need.unmet());
        let run = move || match unmet() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => with_or_without_others(needs, || conclusive(test)).map(|()| Completion::Completed),
        };
        Trial::ignorable_test(name.trim_start_matches("kernel::"), run)
    };
    tests.iter().map(trial).collect()
}

/// Runs a test beside others; one that changes the whole machine, or that has to do with its largest crash before the
/// first TIME_WAIT ends, alone.
fn with_or_without_others<T>(needs: &[Need], test: impl FnOnce() -> T) -> T {
    static MACHINE: RwLock<()> = RwLock::new(());
    let alone = [Need::OwnMachine, Need::Descriptors, Need::NoOthers];
    if alone.iter().any(|need| needs.contains(need)) {
        let _alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        test()
    } else {
        let _beside_others = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        test()
    }
}

/// Runs a test, and again if events were lost.
///
/// While an interrupt interrupts a program, the kernel skips the program for what it does meanwhile: up to hundreds of
/// events at once on a machine whose softirqs are behind. A report says how many were lost, and is then no
/// evidence of what it would have been. It happens to one in hundreds of tests, and more often where programs are emulated.
fn conclusive(test: fn()) -> Result<(), Failed> {
    const ATTEMPTS: usize = 5;
    let lost = |failed: &Failed| {
        failed
            .message()
            .is_some_and(|message| message.contains(LOST_EVENTS))
    };
    let mut result = sandbox::run(test);
    for _ in 1..ATTEMPTS {
        if !result.as_ref().is_err_and(lost) {
            break;
        }
        result = sandbox::run(test);
    }
    result
}

/// Tests that need nothing.
fn unprivileged(tests: &[(&str, fn())]) -> Vec<Trial> {
    let trial = |&(name, test): &(&str, fn())| {
        Trial::test(
            name.trim_start_matches("kernel::"),
            move || -> Result<(), Failed> {
                test();
                Ok(())
            },
        )
    };
    tests.iter().map(trial).collect()
}

/// The victims inherit it. The hard limit stays, so that one can dump for the test of core dumps. A limit of 0
/// is no limit for a program that `core_pattern` gives the cores to, and 1 is one (core(5)).
fn forbid_core_dumps() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: Both calls use one rlimit, which outlives them.
    unsafe {
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
        limit.rlim_cur = 1;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
    }
}
