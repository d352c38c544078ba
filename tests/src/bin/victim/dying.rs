//! The ways to die.

use std::io::{self, Error};
use std::process;
use std::ptr;
use std::thread;

use sockleak_tests::net::checked;

use crate::{faults, number};

/// Dies. It returns only when that way is not known.
pub fn die(way: &[&str]) -> io::Result<()> {
    match *way {
        ["segv"] => write_where_nothing_is(),
        ["abort"] => process::abort(),
        ["raise", signal] => {
            // SAFETY: raise takes an integer and touches no memory of ours.
            checked(unsafe { libc::raise(number(signal)?) }).map(drop)
        }
        ["exit", code] => process::exit(number(code)?),
        ["exit-thread", code] => {
            let code: i32 = number(code)?;
            // SAFETY: It ends the calling thread alone, which nobody joins.
            unsafe { libc::syscall(libc::SYS_exit, code) };
            Err(Error::last_os_error())
        }
        // SAFETY: _exit ends the process without any clean-up that could rely on something.
        ["_exit", code] => unsafe { libc::_exit(number(code)?) },
        ["panic"] => panic!("as the test wants it"),
        _ => faults::die(way),
    }
}

/// Dies in a thread that is not the leader and has another name.
pub fn die_in_thread(way: &[&str]) -> io::Result<()> {
    let way: Vec<String> = way.iter().map(|word| (*word).to_owned()).collect();
    let body = move || die(&way.iter().map(String::as_str).collect::<Vec<_>>());
    let thread = thread::Builder::new().name("worker".into()).spawn(body)?;
    thread.join().expect("it dies or returns")
}

fn write_where_nothing_is() -> io::Result<()> {
    // SAFETY: An anonymous mapping at an address that the kernel chooses changes no memory of ours.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: The page is ours and nothing else refers to it; that it forbids the write, so that the
    // processor faults, is the purpose.
    unsafe { page.cast::<u8>().write_volatile(1) };
    Ok(())
}

/// The runtime ignores SIGPIPE and looks at SIGSEGV and SIGBUS itself, and nohup(1) or a shell may have left others
/// ignored: a signal that was sent would not kill.
pub fn restore_default_signals() {
    for signal in 1..=libc::SIGSYS {
        // SAFETY: The default action runs no code of ours. Of SIGKILL and SIGSTOP the kernel refuses to change it.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
