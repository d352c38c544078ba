//! Commands that may do less than root, or that have other reasons to be refused.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use crate::net::checked;

/// A capability by its number (include/uapi/linux/capability.h).
pub type Capability = u32;

pub const DAC_READ_SEARCH: Capability = 2;
pub const SETGID: Capability = 6;
pub const SETUID: Capability = 7;
pub const SYS_PTRACE: Capability = 19;
pub const SYS_ADMIN: Capability = 21;
pub const PERFMON: Capability = 38;
pub const BPF: Capability = 39;

/// What the README asks for.
pub const DOCUMENTED: [Capability; 5] = [BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH, SYS_ADMIN];

/// Of those all but some.
#[must_use]
pub fn without(missing: &[Capability]) -> Vec<Capability> {
    let kept = DOCUMENTED.into_iter().filter(|one| !missing.contains(one));
    kept.collect()
}

/// The user that the commands are run as.
pub const NOBODY: u32 = 65534;

/// `struct __user_cap_header_struct` and its data, of version 3.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Lets the command run as nobody with these capabilities and no others.
pub fn keep_only(command: &mut Command, capabilities: &[Capability]) {
    let kept = capabilities.to_vec();
    // SAFETY: Between fork and exec it makes system calls only, on memory that was prepared before.
    unsafe { command.pre_exec(move || become_nobody(&kept)) };
}

fn become_nobody(kept: &[Capability]) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let none = [0_u32; 0];
    let mut sets = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    for capability in kept {
        let set = &mut sets[usize::from(*capability >= 32)];
        let bit = 1 << (capability % 32);
        set.effective |= bit;
        set.permitted |= bit;
        set.inheritable |= bit;
    }
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: prctl takes integers here, and the other calls read memory that outlives them.
    unsafe {
        // The memory of maps counts before 5.11. Where this is refused, a later kernel does not care.
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited);
        checked(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        // libc's own would wait for the other threads of the parent.
        let calls = [
            libc::syscall(libc::SYS_setgroups, 0, none.as_ptr()),
            libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY),
            libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY),
            libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()),
        ];
        if calls.contains(&-1) {
            return Err(io::Error::last_os_error());
        }
        for capability in kept {
            let (raise, capability) = (libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(*capability));
            checked(libc::prctl(
                libc::PR_CAP_AMBIENT,
                raise,
                capability,
                0_usize,
                0_usize,
            ))?;
        }
    }
    Ok(())
}

/// Lets a seccomp filter answer bpf(2) with EPERM.
pub fn forbid_bpf(command: &mut Command) {
    // SAFETY: As above.
    unsafe { command.pre_exec(filter_bpf) };
}

fn filter_bpf() -> io::Result<()> {
    let number = u32::try_from(mem::offset_of!(libc::seccomp_data, nr)).expect("a small number");
    let bpf = u32::try_from(libc::SYS_bpf).expect("a small number");
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).expect("a small number");
    let statement = |code: u32, jf, k| libc::sock_filter {
        code: u16::try_from(code).expect("a small number"),
        jt: 0,
        jf,
        k,
    };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, number),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, bpf),
        statement(libc::BPF_RET | libc::BPF_K, 0, refusal),
        statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("four"),
        filter: filter.as_mut_ptr(),
    };
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: The program and its instructions live through the call, which copies them.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        checked(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program)).map(drop)
    }
}

/// Lets the command see a /proc that is mounted with this option. It is to keep fewer capabilities after that.
pub fn mount_proc(command: &mut Command, option: &'static CStr) {
    // SAFETY: As above.
    unsafe { command.pre_exec(|| mount_own_proc(option)) };
}

fn mount_own_proc(option: &CStr) -> io::Result<()> {
    let (root, proc) = (c"/".as_ptr(), c"/proc".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: The strings end with NUL and outlive the calls.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWNS))?;
        checked(libc::mount(ptr::null(), root, ptr::null(), private, ptr::null()))?;
        let kind = c"proc".as_ptr();
        checked(libc::mount(kind, proc, kind, 0, option.as_ptr().cast())).map(drop)
    }
}

/// Lets the command be root, with all capabilities, of a user namespace of its own.
pub fn rule_a_user_namespace(command: &mut Command) {
    // SAFETY: As above.
    unsafe { command.pre_exec(become_its_root) };
}

fn become_its_root() -> io::Result<()> {
    let map = b"0 0 1";
    // SAFETY: The calls take integers, and a string and a slice that outlive them.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWUSER))?;
        let file = checked(libc::open(
            c"/proc/self/uid_map".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        ))?;
        if libc::write(file, map.as_ptr().cast(), map.len()) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
