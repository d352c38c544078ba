//! A process that does what it is told to its sockets and then dies as it is told.
//!
//! Commands come as arguments and then as lines of stdin; each is answered by a line on stdout, `ok` and
//! what is worth telling. At the end of stdin it exits.

mod children;
mod core_dumps;
mod dying;
mod faults;
mod holding;
mod outgoing;
mod pairs;
mod relatives;
mod sockets;
mod threads;

use std::env;
use std::fs;
use std::io::{self, Error};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::str::FromStr;
use std::thread;

use sockleak_tests::io_uring::Ring;
use sockleak_tests::net::{self, checked};

fn main() {
    let mut victim = Victim::default();
    for command in env::args().skip(1) {
        victim.obey(&command);
    }
    victim.serve();
}

#[derive(Default)]
struct Victim {
    listener: Option<OwnedFd>,
    /// In the order in which they were accepted or made; commands name them by index.
    sockets: Vec<OwnedFd>,
    /// Further descriptors of the same sockets.
    doubles: Vec<OwnedFd>,
    /// Leads to a child that was forked before there was any other socket.
    courier: Option<OwnedFd>,
    /// Holds sockets of which there need not be a descriptor.
    rings: Vec<Ring>,
}

impl Victim {
    fn serve(mut self) {
        let mut line = String::new();
        while io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
            if line.trim() == "leader-exit" {
                self.leave_the_leader();
            }
            self.obey(line.trim());
            line.clear();
        }
    }

    fn obey(&mut self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        match self.execute(&words) {
            Ok(Some(answer)) => println!("ok {answer}"),
            Ok(None) => {}
            Err(error) => println!("`{command}`: {error}"),
        }
    }

    /// The answer, or `None` when somebody else answers.
    fn execute(&mut self, words: &[&str]) -> io::Result<Option<String>> {
        let mut answer = String::new();
        match *words {
            ["hello"] => {}
            ["listen", family, ref options @ ..] => answer = self.listen(family, options)?.to_string(),
            ["accept", count] => {
                for _ in 0..number(count)? {
                    self.sockets.push(net::accept(self.listener()?)?);
                }
            }
            ["connect", address] => self.connect(address, 0)?,
            ["connecting", address] => self.connect(address, libc::SOCK_NONBLOCK)?,
            ["outgoing", count, address] => self.connect_many(number(count)?, address)?,
            ["bind", family, ref options @ ..] => {
                let socket = sockets::bound(family, options)?;
                answer = net::local_address(socket.as_fd())?.to_string();
                self.sockets.push(socket);
            }
            ["become", user] => sockets::become_user(number(user)?)?,
            ["restart", address, ref options @ ..] => answer = sockets::restart(address, options)?,
            ["linger", seconds, index] => net::set_linger(self.socket(index)?, number(seconds)?)?,
            ["linger2", seconds, index] => {
                let seconds: i32 = number(seconds)?;
                net::set(self.socket(index)?, libc::IPPROTO_TCP, libc::TCP_LINGER2, seconds)?;
            }
            ["repair", index] => {
                net::set(self.socket(index)?, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1_i32)?;
            }
            ["user-timeout", milliseconds, index] => {
                let milliseconds: u32 = number(milliseconds)?;
                net::set(
                    self.socket(index)?,
                    libc::IPPROTO_TCP,
                    libc::TCP_USER_TIMEOUT,
                    milliseconds,
                )?;
            }
            ["fast-open", backlog] => {
                let backlog: i32 = number(backlog)?;
                net::set(self.listener()?, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, backlog)?;
            }
            ["listen-beside"] => self.listen_beside()?,
            ["other-kinds"] => self.open_other_kinds()?,
            ["pair"] => self.pair()?,
            ["pairs", count, address] => answer = self.pair_many(number(count)?, address)?.to_string(),
            ["paired-workers", count, each] => {
                return self
                    .fork_paired_workers(number(count)?, number(each)?)
                    .map(|()| None);
            }
            ["shutdown", index] => {
                // SAFETY: shutdown takes two integers and touches no memory of ours.
                checked(unsafe { libc::shutdown(self.socket(index)?.as_raw_fd(), libc::SHUT_WR) })?;
            }
            ["read", index] => answer = self.read(index)?.to_string(),
            ["fill", index] => answer = self.fill(index)?.to_string(),
            ["dup-to", fd, index] => answer = self.duplicate_to(fd, index)?.to_string(),
            ["dup", index] => self.doubles.push(self.socket(index)?.try_clone()?),
            ["close"] => self.sockets.clear(),
            ["close", count] => self.close_first(number(count)?)?,
            ["keep-on-exec"] => self.keep_on_exec()?,
            ["exec"] => return Err(Command::new("/proc/self/exe").arg("hello").exec()),
            ["fork"] => answer = self.fork(0)?.to_string(),
            ["fork-files"] => answer = self.fork(libc::CLONE_FILES)?.to_string(),
            ["workers", count, each] => {
                return self.fork_workers(number(count)?, number(each)?).map(|()| None);
            }
            ["courier", task] => answer = self.fork_courier(task == "receives")?.to_string(),
            ["pass"] => self.pass()?,
            ["fd", which] => answer = self.descriptor(which)?.to_string(),
            ["take", pid, fd] => self.take(number(pid)?, number(fd)?)?,
            ["fork-exec"] => answer = self.fork_exec()?.to_string(),
            ["hold"] => relatives::wait_for_end_of_stdin(),
            ["ring-register", which] => self.register_with_ring(which)?,
            ["ring-accept"] => self.accept_into_ring()?,
            ["drop", which] => self.drop_descriptor(which)?,
            ["own-network"] => sockleak_tests::sandbox::enter()?,
            ["comm", name] => {
                let name = name.replace("\\e", "\x1b") + "\0";
                // SAFETY: PR_SET_NAME reads a string that ends with a zero, which outlives the call.
                checked(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })?;
            }
            ["threads", count] => {
                for _ in 0..number(count)? {
                    thread::Builder::new().name("idler".into()).spawn(thread::park)?;
                }
            }
            ["thread", ref what @ ..] => answer = threads::obey(what)?,
            ["child", ref what @ ..] => match children::obey(what)? {
                Some(told) => answer = told,
                None => return Ok(None),
            },
            ["default-signals"] => dying::restore_default_signals(),
            ["dump-core"] => core_dumps::limit(64 << 20)?,
            ["limit-core", bytes] => core_dumps::limit(number(bytes)?)?,
            ["not-dumpable"] => core_dumps::forbid()?,
            ["swallow-core"] => core_dumps::swallow()?,
            ["die", ref way @ ..] => return dying::die(way).map(|()| None),
            ["die-in-thread", ref way @ ..] => return dying::die_in_thread(way).map(|()| None),
            _ => return Err(Error::other("no such command")),
        }
        Ok(Some(answer))
    }

    fn listener(&self) -> io::Result<&OwnedFd> {
        self.listener.as_ref().ok_or_else(|| Error::other("no listener"))
    }

    fn socket(&self, index: &str) -> io::Result<&OwnedFd> {
        let index: usize = number(index)?;
        self.sockets
            .get(index)
            .ok_or_else(|| Error::other("no such socket"))
    }

    fn listen(&mut self, family: &str, options: &[&str]) -> io::Result<SocketAddr> {
        let listener = sockets::bound(family, options)?;
        net::listen(&listener, 128)?;
        let address = net::local_address(listener.as_fd())?;
        self.listener = Some(listener);
        Ok(address)
    }

    fn connect(&mut self, address: &str, flags: i32) -> io::Result<()> {
        let address = match address {
            "self" => net::local_address(self.listener()?.as_fd())?,
            other => other.parse().map_err(Error::other)?,
        };
        let socket = net::socket(address, 0, flags)?;
        net::connect(&socket, address)?;
        self.sockets.push(socket);
        Ok(())
    }

    /// Reads what is there, waiting for the first byte.
    fn read(&self, index: &str) -> io::Result<usize> {
        let mut buffer = [0_u8; 4096];
        let socket = self.socket(index)?.as_raw_fd();
        // SAFETY: The pointer and the length describe `buffer`, which outlives the call.
        let length = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(length).map_err(|_| Error::last_os_error())
    }

    /// Sends until the peer's window and the own buffer are full.
    fn fill(&self, index: &str) -> io::Result<usize> {
        let socket = self.socket(index)?.as_raw_fd();
        let bytes = [b'x'; 65536];
        let mut total = 0;
        loop {
            // SAFETY: The pointer and the length describe `bytes`, which outlives the call.
            let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
            match usize::try_from(sent) {
                Ok(sent) => total += sent,
                Err(_) if Error::last_os_error().kind() == io::ErrorKind::WouldBlock => return Ok(total),
                Err(_) => return Err(Error::last_os_error()),
            }
        }
    }

    fn keep_on_exec(&self) -> io::Result<()> {
        for socket in self.listener.iter().chain(&self.sockets) {
            // SAFETY: F_SETFD takes integers and touches no memory of ours.
            checked(unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, 0) })?;
        }
        Ok(())
    }

    /// Lets the first thread end while another goes on.
    fn leave_the_leader(&mut self) {
        let victim = std::mem::take(self);
        thread::spawn(|| {
            let is_gone = |stat: String| stat.contains(") Z ");
            while !fs::read_to_string("/proc/self/stat").is_ok_and(is_gone) {
                thread::yield_now();
            }
            println!("ok");
            victim.serve();
            process::exit(0);
        });
        // SAFETY: It ends this thread alone, which has given away everything that it owned.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

fn number<T: FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| Error::other("not a number"))
}
