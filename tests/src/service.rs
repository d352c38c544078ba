//! A service in the test process, and the kernel's word on how many connections it can still get.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

use crate::net;

/// Outside of every range that connect() is given to choose from.
pub const PORT: u16 = 8080;

/// A service that closes its ends once the victim has, so that the victim's become TIME_WAIT.
pub struct Service {
    listener: TcpListener,
    pub accepted: Vec<TcpStream>,
}

impl Service {
    #[track_caller]
    #[must_use]
    pub fn at(ip: IpAddr) -> Self {
        Self {
            listener: TcpListener::bind((ip, PORT)).expect("a free port"),
            accepted: Vec::new(),
        }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Accepts so many connections.
    #[track_caller]
    pub fn accept(&mut self, count: usize) {
        for _ in 0..count {
            self.accepted
                .push(self.listener.accept().expect("a client has connected").0);
        }
    }

    /// Every accepted connection ends when its client does.
    #[must_use]
    pub fn closes_when_closed(&mut self) -> JoinHandle<()> {
        let accepted = std::mem::take(&mut self.accepted);
        thread::spawn(move || {
            for mut stream in accepted {
                // A victim that was killed has closed in any order.
                let _ = io::copy(&mut stream.by_ref(), &mut io::sink());
            }
        })
    }

    /// How many connections can be made until connect() fails, which must be with EADDRNOTAVAIL.
    #[track_caller]
    #[must_use]
    pub fn connections_until_refused(&mut self) -> u64 {
        let mut made = Vec::new();
        loop {
            match self.connect() {
                Ok(socket) => made.push(socket),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
                    return made.len() as u64;
                }
            }
        }
    }

    /// A connection to it, of which it keeps the other end.
    ///
    /// # Errors
    /// The errno of connect().
    pub fn connect(&mut self) -> io::Result<OwnedFd> {
        let socket = net::socket(self.address(), 0, 0)?;
        net::connect(socket.as_fd(), self.address())?;
        self.accept(1);
        Ok(socket)
    }
}
