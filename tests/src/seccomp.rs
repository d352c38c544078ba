//! System calls that are refused to a program, as a container or a hardened service refuses them.

use std::mem::offset_of;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::net::checked;

/// A system call that fails with EPERM.
#[derive(Clone, Copy)]
pub struct Refused {
    call: libc::c_long,
    /// Only if its first argument is this.
    first: Option<u32>,
}

/// No symbolic link can be read, as those of `/proc/PID/fd` are.
pub const LINKS: &[Refused] = &[
    #[cfg(target_arch = "x86_64")]
    Refused {
        call: libc::SYS_readlink,
        first: None,
    },
    Refused {
        call: libc::SYS_readlinkat,
        first: None,
    },
];

/// No BPF iterator can be made (`BPF_ITER_CREATE` of `enum bpf_cmd`, include/uapi/linux/bpf.h).
pub const ITERATORS: &[Refused] = &[Refused {
    call: libc::SYS_bpf,
    first: Some(33),
}];

/// No open file can be given to somebody else.
pub const OWNERS: &[Refused] = &[Refused {
    call: libc::SYS_fchown,
    first: None,
}];

/// Refuses these calls to the program that the command starts. It needs root.
pub fn refuse(command: &mut Command, calls: &[Refused]) {
    let mut program: Vec<_> = calls.iter().flat_map(Refused::steps).collect();
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    let install = move || {
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).expect("a short program"),
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: The kernel copies the filter, which outlives the call.
        let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
        checked(done).map(drop)
    };
    // SAFETY: prctl is a system call that needs no lock and no memory.
    unsafe { command.pre_exec(install) };
}

impl Refused {
    fn steps(&self) -> Vec<libc::sock_filter> {
        let number = u32::try_from(self.call).expect("calls have small numbers");
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        let mut steps = vec![step(libc::BPF_RET | libc::BPF_K, 0, refuse)];
        // The lower half of it, on machines that begin with that.
        let conditions = [
            (self.first, offset_of!(libc::seccomp_data, args)),
            (Some(number), offset_of!(libc::seccomp_data, nr)),
        ];
        for (wanted, place) in conditions {
            let Some(wanted) = wanted else { continue };
            let skipped = u8::try_from(steps.len()).expect("a few steps");
            let place = u32::try_from(place).expect("a small struct");
            steps.insert(
                0,
                step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, wanted),
            );
            steps.insert(0, step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, place));
        }
        steps
    }
}

/// A step that skips so many others where its condition is not met.
fn step(code: u32, skipped: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("opcodes are small"),
        jt: 0,
        jf: skipped,
        k,
    }
}
