//! Makes aya's loader, without what it does needlessly.

use std::thread;

use aya::EbpfLoader;

/// A loader that knows nothing of the kernel's types, as these programs need it.
///
/// `EbpfLoader::new` of aya 0.14 makes a tree of the whole BTF of the kernel, before it can be told not to: tens of
/// milliseconds and of MiB (later versions read it when it is needed). It goes without where it cannot open the file, so
/// the loader is made in a thread that can open none, and that ends with it.
#[must_use]
pub fn make<'a>() -> EbpfLoader<'a> {
    let make = || {
        refuse_open();
        EbpfLoader::new()
    };
    let thread = thread::Builder::new().spawn(make).ok();
    let made = thread.and_then(|thread| thread.join().ok());
    let mut loader = made.unwrap_or_default();
    loader.btf(None);
    loader
}

/// The calling thread opens no file any more. Where the kernel refuses that, all is as before.
fn refuse_open() {
    const NUMBER: u32 = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER)];
    for number in OPEN {
        filter.push(libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *number as u32)
        });
        filter.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::ENOENT as u32,
        ));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: The program and its instructions live through the call, which copies them. Both calls are about the
    // calling thread alone.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        );
    }
}

/// The system calls that libraries open files with.
#[cfg(target_arch = "x86_64")]
const OPEN: &[libc::c_long] = &[libc::SYS_openat, libc::SYS_open];
#[cfg(not(target_arch = "x86_64"))]
const OPEN: &[libc::c_long] = &[libc::SYS_openat];

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_the_thread_itself_opens_nothing() {
        let opened = || File::open("/proc/self/stat").is_ok();
        let inside = thread::spawn(move || {
            refuse_open();
            opened()
        });
        assert!(!inside.join().unwrap());
        assert!(opened());
    }
}
