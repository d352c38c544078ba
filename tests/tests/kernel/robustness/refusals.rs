//! What sockleak refuses, each with a sentence that says why.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net::checked;
use sockleak_tests::programs;
use sockleak_tests::tracer::{Run, Tracer, finish, run};
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed, unprivileged};

pub fn tests() -> Vec<Trial> {
    let mut tests = unprivileged(named![
        wrong_arguments_give_a_usage_line,
        help_and_version_need_nothing,
        without_privilege_the_capabilities_are_named,
    ]);
    tests.extend(sandboxed(
        &[],
        named![
            a_process_that_does_not_exist,
            a_process_that_is_dead,
            a_demo_without_net_admin,
            a_limit_of_locked_memory_that_may_not_be_raised,
        ],
    ));
    tests.extend(sandboxed(&[Need::KernelThreads], named![a_kernel_thread]));
    tests
}

#[track_caller]
pub fn refused(run: &Run, word: &str) {
    assert_eq!(run.status, 2, "{}", run.stderr);
    assert!(run.stderr.contains(word), "no `{word}` in {}", run.stderr);
    assert_eq!(run.stdout, "");
}

fn wrong_arguments_give_a_usage_line() {
    let wrong: [&[&str]; 6] = [
        &["--no-such-option"],
        &["--pid", "x"],
        &["--pid", "0"],
        &["-o", "xml", "--pid", "1"],
        &[],
        &["--pid", "1", "--", "true"],
    ];
    for arguments in wrong {
        refused(&run(arguments), "Usage");
    }
}

fn help_and_version_need_nothing() {
    for arguments in [["--help"], ["--version"], ["-h"]] {
        let run = run(arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        assert!(run.stdout.contains("sockleak"), "{}", run.stdout);
    }
}

/// A sockleak that an unprivileged user can run wherever the build is.
pub fn public_copy() -> (tempfile::TempDir, PathBuf) {
    public_copy_of(&programs::sockleak())
}

/// The same of any program.
pub fn public_copy_of(program: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let copy = folder.path().join(program.file_name().expect("a program"));
    fs::copy(program, &copy).expect("the binary can be read");
    // A child of another test that is on its way to its program has what wrote the copy open too.
    wait_until("nobody has the copy open for writing", || {
        let run = Command::new(&copy).arg("--version").output();
        run.is_ok_and(|run| run.status.success())
    });
    (folder, copy)
}

fn without_privilege_the_capabilities_are_named() {
    let (_folder, sockleak) = public_copy();
    // SAFETY: geteuid cannot fail and touches no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    for arguments in [&["--pid", "1"][..], &["--", "true"], &["demo"]] {
        let mut command = Command::new(&sockleak);
        if is_root {
            command.uid(65534).gid(65534);
        }
        let run = finish(command.args(arguments));
        refused_environment(&run, arguments);
    }
}

/// With a COMMAND its own statuses are below 125.
#[track_caller]
fn refused_environment(run: &Run, arguments: &[&str]) {
    let expected = if arguments[0] == "--" { 125 } else { 2 };
    assert_eq!(run.status, expected, "{arguments:?}: {}", run.stderr);
    for capability in ["CAP_BPF", "CAP_PERFMON"] {
        assert!(run.stderr.contains(capability), "{arguments:?}: {}", run.stderr);
    }
}

/// No process has this number: the kernel's highest limit is one more than the highest number.
fn a_process_that_does_not_exist() {
    refused(&run(["--pid", "4194304"]), "4194304");
}

fn a_process_that_is_dead() {
    let mut child = Command::new("true").spawn().expect("a process");
    let stat = format!("/proc/{}/stat", child.id());
    wait_until("a zombie", || {
        fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))
    });
    refused(&run(["--pid", &child.id().to_string()]), &child.id().to_string());
    child.wait().expect("it is our child");
}

fn a_kernel_thread() {
    refused(&run(["--pid", "2"]), "kernel thread");
}

/// Runs without this capability, as root.
fn drop_capability(number: libc::c_ulong) -> io::Result<()> {
    // SAFETY: prctl is a system call that needs no lock, and this request takes integers only.
    checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) }).map(drop)
}

fn a_demo_without_net_admin() {
    const CAP_NET_ADMIN: libc::c_ulong = 12;
    let mut command = Command::new(programs::sockleak());
    command.arg("demo");
    // SAFETY: It makes a system call only.
    unsafe { command.pre_exec(|| drop_capability(CAP_NET_ADMIN)) };
    let run = finish(&mut command);
    refused(&run, "CAP_NET_ADMIN");
    refused(&run, "sudo /");
    assert!(!run.stderr.contains("CAP_SYS_ADMIN"), "{}", run.stderr);
}

/// Before 5.11 the memory of maps counts towards it.
fn a_limit_of_locked_memory_that_may_not_be_raised() {
    const CAP_SYS_RESOURCE: libc::c_ulong = 24;
    let types = fs::read("/sys/kernel/btf/vmlinux").expect("it is there");
    let counted = b"\0bpf_map_memory\0";
    let is_counted = types.windows(counted.len()).any(|window| window == counted);

    let mut victim = Victim::start();
    let mut command = Command::new(programs::sockleak());
    command.args(["-o", "json", "--pid", &victim.pid().to_string()]);
    let limit = libc::rlimit {
        rlim_cur: 1 << 16,
        rlim_max: 1 << 16,
    };
    // SAFETY: Both are system calls; setrlimit reads one rlimit, which is the closure's own.
    unsafe {
        command.pre_exec(move || {
            checked(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit))?;
            drop_capability(CAP_SYS_RESOURCE)
        });
    }
    if is_counted {
        let run = finish(&mut command);
        refused(&run, "RLIMIT_MEMLOCK, which is 64 KiB");
        refused(&run, "sudo prlimit --memlock=unlimited --pid $$");
    } else {
        let mut tracer = Tracer::spawn(&mut command);
        tracer.watches();
        victim.killed_by(libc::SIGKILL);
        assert_eq!(tracer.report()["process"]["pid"], victim.pid());
        tracer.finishes();
    }
}
