//! Children that end soon, or that are made in other ways than by fork().

use std::io::{self, Error, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{self, Command, Stdio};
use std::ptr;

use sockleak_tests::net::{self, Family, checked};
use sockleak_tests::reused_pid;

use crate::relatives::wait_for_end_of_stdin;
use crate::{dying, number};

/// Makes a child; the answer, or `None` when the child answers.
pub fn obey(what: &[&str]) -> io::Result<Option<String>> {
    match *what {
        ["killed-at-once", count] => kill_at_once(number(count)?).map(Some),
        ["spawned"] => spawn().map(Some),
        ["vforked", ref way @ ..] => vfork(way).map(Some),
        ["numbered", pid] => fork_as(number(pid)?).map(|()| None),
        ["reborn", count] => be_reborn(number(count)?).map(Some),
        ["come-and-go", count, with_sockets] => {
            come_and_go(number(count)?, number(with_sockets)?).map(|()| Some(String::new()))
        }
        ["reaped"] => wait_for(-1).map(|()| Some(String::new())),
        ["shares-memory"] => share_memory().map(Some),
        _ => Err(Error::other("no such child")),
    }
}

fn wait_for(pid: i32) -> io::Result<()> {
    // SAFETY: A null pointer is allowed and means that the status is not wanted.
    checked(unsafe { libc::waitpid(pid, ptr::null_mut(), 0) }).map(drop)
}

/// Children that are killed before they run, as far as the scheduler has it so: they may run on this
/// processor only, which their parent does not leave. Their numbers.
fn kill_at_once(count: u32) -> io::Result<String> {
    // SAFETY: All-zero is an empty set; the calls use one set, which outlives them, and sched_getcpu has no
    // preconditions.
    unsafe {
        let mut here: libc::cpu_set_t = std::mem::zeroed();
        let processor = usize::try_from(checked(libc::sched_getcpu())?).map_err(Error::other)?;
        libc::CPU_SET(processor, &mut here);
        checked(libc::sched_setaffinity(0, size_of_val(&here), &raw const here))?;
    }
    let mut pids = Vec::new();
    for _ in 0..count {
        // SAFETY: The process has one thread, so the child may use everything.
        let pid = checked(unsafe { libc::fork() })?;
        if pid == 0 {
            wait_for_end_of_stdin();
        }
        // SAFETY: kill takes two integers and touches no memory of ours.
        checked(unsafe { libc::kill(pid, libc::SIGKILL) })?;
        wait_for(pid)?;
        pids.push(pid.to_string());
    }
    Ok(pids.join(" "))
}

/// Another program by posix_spawn(), which ends by itself. Its number.
fn spawn() -> io::Result<String> {
    let mut child = Command::new("/proc/self/exe")
        .arg("die _exit 7")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let status = child.wait()?;
    if status.code() != Some(7) {
        return Err(Error::other(format!("the spawned child: {status}")));
    }
    Ok(child.id().to_string())
}

/// Children one after the other. Most end at once; each time after so many, one opens something and is killed.
fn come_and_go(count: u32, with_sockets: u32) -> io::Result<()> {
    for number in 1..=count {
        // SAFETY: The process has one thread, so the child may use everything.
        let child = checked(unsafe { libc::fork() })?;
        if child == 0 {
            if number % with_sockets == 0 {
                let mut kept = Vec::new();
                let _ = leave_something(&mut kept);
                // SAFETY: The calls take integers.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
            // SAFETY: _exit needs nothing.
            unsafe { libc::_exit(0) };
        }
        wait_for(child)?;
    }
    Ok(())
}

const STACK: usize = 256 << 10;

/// A child that has this process's memory and dies before any exec, while this process waits. Its number.
fn vfork(way: &[&str]) -> io::Result<String> {
    let pid = clone_with_memory(libc::CLONE_VFORK, way)?;
    wait_for(pid)?;
    Ok(pid.to_string())
}

/// A process that has this process's memory and lives on. Its number.
fn share_memory() -> io::Result<String> {
    clone_with_memory(0, &[]).map(|pid| pid.to_string())
}

/// The child dies in that way, or waits for the end of stdin if none is named.
fn clone_with_memory(flags: i32, way: &[&str]) -> io::Result<i32> {
    extern "C" fn live(way: *mut libc::c_void) -> libc::c_int {
        // SAFETY: It is the slice below, which is never freed.
        let way = unsafe { &*way.cast::<Vec<String>>() };
        if way.is_empty() {
            wait_for_end_of_stdin();
        }
        let _ = dying::die(&way.iter().map(String::as_str).collect::<Vec<_>>());
        // SAFETY: _exit needs nothing.
        unsafe { libc::_exit(127) }
    }
    let way: Vec<String> = way.iter().map(|word| (*word).to_owned()).collect();
    let way = Box::leak(Box::new(way));
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    // SAFETY: The stack and the argument are never freed, the stack grows down from its end, and this
    // process's other memory is used by both only as `live` does, which ends in _exit or in a signal.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK).cast();
        let flags = flags | libc::CLONE_VM | libc::SIGCHLD;
        libc::clone(live, top, flags, ptr::from_mut(way).cast())
    };
    checked(pid)
}

/// A child with a number that another process had. It listens, connects to itself, closes that connection,
/// and stays.
fn fork_as(pid: i32) -> io::Result<()> {
    // SAFETY: The process has one thread, so the child may use everything.
    if unsafe { reused_pid::fork_as(pid) }? != 0 {
        return Ok(());
    }
    let mut kept = Vec::new();
    match leave_something(&mut kept) {
        Ok(()) => println!("ok {}", process::id()),
        Err(error) => println!("{error}"),
    }
    wait_for_end_of_stdin();
}

/// Children one after the other, all with the number of the first. Each opens something and is killed. The number, and
/// the port that each one listened on.
fn be_reborn(count: u32) -> io::Result<String> {
    let mut told = Vec::new();
    let mut pid = None;
    for _ in 0..count {
        let (mut says, tells) = io::pipe()?;
        let child = match pid {
            // SAFETY: The process has one thread, so the child may use everything.
            None => checked(unsafe { libc::fork() })?,
            // SAFETY: As above.
            Some(pid) => unsafe { reused_pid::fork_as(pid) }?,
        };
        if child == 0 {
            let mut kept = Vec::new();
            if leave_something(&mut kept).is_ok()
                && let Ok(address) = net::local_address(kept[2].as_fd())
            {
                let _ = (&tells).write_all(address.port().to_string().as_bytes());
            }
            // SAFETY: The calls take integers.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        drop(tells);
        let mut port = String::new();
        says.read_to_string(&mut port)?;
        wait_for(child)?;
        pid = Some(child);
        told.push(port);
    }
    Ok(format!("{} {}", pid.unwrap_or_default(), told.join(" ")))
}

fn leave_something(kept: &mut Vec<std::os::fd::OwnedFd>) -> io::Result<()> {
    let listener = net::socket(Family::V4.address(0), 0, 0)?;
    net::bind(&listener, Family::V4.address(0))?;
    net::listen(&listener, 8)?;
    let address = net::local_address(std::os::fd::AsFd::as_fd(&listener))?;
    for _ in 0..2 {
        let socket = net::socket(address, 0, 0)?;
        net::connect(&socket, address)?;
        kept.push(net::accept(&listener)?);
        kept.push(socket);
    }
    kept.truncate(2);
    kept.push(listener);
    Ok(())
}
