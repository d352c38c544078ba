//! Deaths by a signal that no process sends: the kernel answers an error of the program with it.

use std::ffi::CStr;
use std::hint;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use sockleak_tests::net::checked;

/// Dies. It returns only when that way is not known, or when the kernel did not kill.
pub fn die(way: &[&str]) -> io::Result<()> {
    match *way {
        ["bus"] => read_beyond_the_end_of_a_file()?,
        ["pipe"] => write_into_a_pipe_without_reader()?,
        ["xfsz"] => write_beyond_the_limit_of_files()?,
        ["alrm"] => wait_for_the_alarm()?,
        ["seccomp", "process"] => break_a_seccomp_rule(libc::SECCOMP_RET_KILL_PROCESS)?,
        ["seccomp", "thread"] => break_a_seccomp_rule(libc::SECCOMP_RET_KILL_THREAD)?,
        ["instruction", kind] => execute(kind)?,
        ["oom"] => use_all_memory(),
        _ => return Err(Error::other("no such death")),
    }
    Err(Error::other("the kernel let it pass"))
}

/// SIGILL, SIGTRAP and SIGFPE come from the processor, by instructions that each kind of it has its own of.
fn execute(kind: &str) -> io::Result<()> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: The instructions touch no memory, and the division only the registers that are named.
    unsafe {
        use std::arch::asm;
        match kind {
            "ill" => asm!("ud2"),
            "trap" => asm!("int3"),
            "fpe" => asm!("div {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _),
            _ => return Err(Error::other("no such instruction")),
        }
    }
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Error::other(format!("`{kind}` is not known on this processor")));
    }
    Ok(())
}

fn file_in_memory(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: memfd_create reads a string that ends with a zero, which outlives the call.
    let fd = checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: The call has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn read_beyond_the_end_of_a_file() -> io::Result<()> {
    let file = file_in_memory(c"empty")?;
    // SAFETY: A mapping at an address that the kernel chooses changes no memory of ours.
    let page = unsafe {
        let (protection, fd) = (libc::PROT_READ, file.as_raw_fd());
        libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0)
    };
    if page == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: The page is ours; that no file is behind it, so that the kernel faults, is the purpose.
    unsafe { page.cast::<u8>().read_volatile() };
    Ok(())
}

fn write_byte(fd: i32) {
    // SAFETY: The pointer is to one byte, which outlives the call.
    unsafe { libc::write(fd, c"x".as_ptr().cast(), 1) };
}

fn write_into_a_pipe_without_reader() -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: pipe writes two integers, which outlive the call; the others take integers.
    unsafe {
        // The runtime ignores it.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        checked(libc::pipe(ends.as_mut_ptr()))?;
        libc::close(ends[0]);
    }
    write_byte(ends[1]);
    Ok(())
}

fn write_beyond_the_limit_of_files() -> io::Result<()> {
    let file = file_in_memory(c"forbidden")?;
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: setrlimit reads one rlimit, which outlives the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) })?;
    write_byte(file.as_raw_fd());
    Ok(())
}

fn wait_for_the_alarm() -> io::Result<()> {
    let soon = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: 0,
            tv_usec: 1000,
        },
    };
    // SAFETY: setitimer reads one itimerval, which outlives the call, and may be given no place for the old one.
    unsafe {
        checked(libc::setitimer(
            libc::ITIMER_REAL,
            &raw const soon,
            ptr::null_mut(),
        ))?;
        libc::pause();
    }
    Ok(())
}

/// Forbids getppid() to this thread and calls it.
fn break_a_seccomp_rule(action: u32) -> io::Result<()> {
    let number = u32::try_from(libc::SYS_getppid).map_err(Error::other)?;
    let step = |code: u32, skipped: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("opcodes are small"),
        jt: 0,
        jf: skipped,
        k,
    };
    // The number of the system call is the first member of `struct seccomp_data`.
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, action),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a short program"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: The filter and its program outlive the calls; getppid touches no memory.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        checked(libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        ))?;
        libc::syscall(libc::SYS_getppid);
    }
    Ok(())
}

/// Fills pages until the kernel has none left for the process.
fn use_all_memory() {
    let mut kept = Vec::new();
    loop {
        kept.push(hint::black_box(vec![1_u8; 1 << 20]));
    }
}
