//! The first process of a virtual machine: it makes an ordinary environment, runs the integration tests in
//! it, and switches the machine off.
//!
//! Everything that the tests say goes to the second serial line; the first has the kernel's messages.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Error};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{self, Command};
use std::ptr;

use sockleak_tests::net::checked;

/// File systems: where, and of which type. The later ones are mounted into the earlier ones.
const MOUNTS: [(&str, &str); 5] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "devtmpfs"),
    ("/tmp", "tmpfs"),
    ("/sys/fs/cgroup", "cgroup2"),
];
const RESULTS: &str = "/dev/ttyS1";
/// Enough for the tests of huge tables, and what `fs.nr_open` allows.
const OPEN_FILES: u64 = 1 << 20;
/// How much slower an emulated machine is.
const SLOW: &str = "10";

fn main() {
    // As an ordinary program it would switch off the machine of whoever tried it.
    if process::id() != 1 {
        eprintln!("this is the first process of a virtual machine; run `cargo xtask test --kernel all`");
        process::exit(2);
    }
    match prepare().and_then(|()| run_tests()) {
        Ok(status) => println!("guest: end {status}"),
        Err(error) => println!("guest: {error}"),
    }
    switch_off();
}

fn prepare() -> io::Result<()> {
    for (target, kind) in MOUNTS {
        mount(target, kind).map_err(|error| Error::other(format!("{kind} on {target}: {error}")))?;
    }
    let results = OpenOptions::new().write(true).open(RESULTS)?;
    for fd in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: dup2 takes two integers; both descriptors are open or may be.
        checked(unsafe { libc::dup2(results.as_raw_fd(), fd) })?;
    }
    let limit = libc::rlimit {
        rlim_cur: OPEN_FILES,
        rlim_max: OPEN_FILES,
    };
    // SAFETY: setrlimit reads one rlimit, which outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    // An emulated processor is behind with its softirqs when thousands of sockets die, and a full backlog would drop
    // FINs, which are sent again after many seconds.
    fs::write("/proc/sys/net/core/netdev_max_backlog", "1000000")?;
    let mut modules: Vec<_> = fs::read_dir("/modules")?.collect::<io::Result<_>>()?;
    modules.sort_by_key(fs::DirEntry::file_name);
    for module in modules {
        let name = module.path();
        load_module(&name).map_err(|error| Error::other(format!("{}: {error}", name.display())))?;
    }
    Ok(())
}

fn mount(target: &str, kind: &str) -> io::Result<()> {
    let target = CString::new(target)?;
    let kind = CString::new(kind)?;
    // SAFETY: The strings end with a zero and outlive the call; these file systems take no data.
    checked(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, ptr::null()) }).map(drop)
}

fn load_module(path: &Path) -> io::Result<()> {
    let module = fs::read(path)?;
    // SAFETY: The pointer and the length describe `module`, and the parameters are an empty string; both
    // outlive the call.
    let loaded = unsafe { libc::syscall(libc::SYS_init_module, module.as_ptr(), module.len(), c"".as_ptr()) };
    if loaded == 0 {
        return Ok(());
    }
    Err(Error::last_os_error())
}

fn run_tests() -> io::Result<i32> {
    let arguments = fs::read_to_string("/tests/arguments")?;
    let tests = Command::new("/tests/kernel")
        .args(arguments.lines())
        .args(["--color", "never"])
        .env("PATH", "/usr/bin")
        .env("SOCKLEAK", "/tests/sockleak")
        .env("SOCKLEAK_TEST_SLOW", SLOW)
        .env("SOCKLEAK_TEST_VM", "1")
        .spawn()?;
    // Orphans become children of this process, so it reaps whoever ends.
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one integer, which outlives the call.
        let pid = checked(unsafe { libc::waitpid(-1, &raw mut status, 0) })?;
        if pid.cast_unsigned() == tests.id() {
            return Ok(if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            });
        }
    }
}

/// Does not return.
fn switch_off() {
    // SAFETY: tcdrain and sync take at most an integer; reboot ends everything, and that is the purpose.
    unsafe {
        libc::tcdrain(libc::STDOUT_FILENO);
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}
