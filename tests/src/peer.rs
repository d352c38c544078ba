//! The other end of a victim's connection, held by the test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::{self, JoinHandle};

use crate::limit::{limit, wait_until};
use crate::net;

/// How a connection ended for the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The FIN arrived.
    Closed,
    /// The errno of the read.
    Error(i32),
}

/// The end that an RST makes.
pub const RESET: End = End::Error(libc::ECONNRESET);

pub struct Peer(TcpStream);

impl Peer {
    #[track_caller]
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::from(TcpStream::connect(reachable(address)).expect("the victim listens"))
    }

    /// A peer that speaks MPTCP.
    #[track_caller]
    #[must_use]
    pub fn connect_mptcp(address: SocketAddr) -> Self {
        let socket = net::socket(address, libc::IPPROTO_MPTCP, 0).expect("the kernel has MPTCP");
        net::connect(&socket, address).expect("the victim listens");
        Self::from(TcpStream::from(socket))
    }

    /// A peer with so little room that a victim soon sees a closed window.
    #[track_caller]
    #[must_use]
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket = net::socket(address, 0, 0).expect("a socket");
        net::set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 4096_i32).expect("any size is accepted");
        net::connect(&socket, address).expect("the victim listens");
        Self::from(TcpStream::from(socket))
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is connected")
    }

    /// Where the victim is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.peer_addr().expect("it is connected")
    }

    /// Waits for the end, after whatever the victim had sent.
    pub fn end(&mut self) -> End {
        match io::copy(&mut self.0, &mut io::sink()) {
            Ok(_) => End::Closed,
            Err(error) => End::Error(error.raw_os_error().expect("an error of the kernel")),
        }
    }

    /// Reads to the end, and tells how many bytes came before it.
    pub fn read_to_end(&mut self) -> (u64, End) {
        let mut read = 0;
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return (read, End::Closed),
                Ok(length) => read += length as u64,
                Err(error) => {
                    return (
                        read,
                        End::Error(error.raw_os_error().expect("an error of the kernel")),
                    );
                }
            }
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the victim's window is open");
    }

    #[track_caller]
    pub fn receive(&mut self, bytes: &mut [u8]) {
        self.0.read_exact(bytes).expect("the victim sends that much");
    }

    /// Sends a FIN and stays.
    #[track_caller]
    pub fn shut_down(&self) {
        self.0.shutdown(Shutdown::Write).expect("it is connected");
    }

    /// Ends with an RST.
    pub fn reset(self) {
        net::set_linger(&self.0, 0).expect("any socket has the option");
    }

    /// Answers the victim's FIN with data, which nobody reads any more, and waits for the RST that this brings.
    #[must_use]
    pub fn sends_when_closed(mut self) -> JoinHandle<()> {
        /// TCP_CLOSE of include/net/tcp_states.h.
        const CLOSE: u8 = 7;
        thread::spawn(move || {
            self.end();
            self.send(b"late");
            wait_until("the reset", || self.state() == CLOSE);
        })
    }

    /// The state of its socket, as `struct tcp_info` has it: 1 is ESTABLISHED.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> u8 {
        let mut state = 0_u8;
        let mut length = 1;
        // SAFETY: The pointers are to one byte and to its length, which outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut state).cast(),
                &raw mut length,
            )
        };
        net::checked(result).expect("any TCP socket has it");
        state
    }

    /// Connects and sends `bytes` with the SYN, as far as the listener allows it.
    #[track_caller]
    #[must_use]
    pub fn connect_with_data(address: SocketAddr, bytes: &[u8]) -> Self {
        let socket = net::socket(address, 0, 0).expect("a socket");
        let (storage, length) = net::raw(address);
        // SAFETY: The pointers and the lengths describe `bytes` and `storage`, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_FASTOPEN,
                (&raw const storage).cast(),
                length,
            )
        };
        assert_eq!(
            usize::try_from(sent).ok(),
            Some(bytes.len()),
            "the victim listens"
        );
        Self::from(TcpStream::from(socket))
    }

    /// Closes when the victim does, as a well-behaved client.
    #[must_use]
    pub fn closes_when_closed(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            self.end();
        })
    }

    /// From now on no packet gets through to it, as if its cable were cut.
    #[track_caller]
    pub fn cut_off(&self) {
        drop_everything(&self.0);
    }
}

impl Peer {
    /// Undoes [`Peer::cut_off`].
    #[track_caller]
    pub fn plug_in(&self) {
        net::set(&self.0, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0_i32).expect("it has a filter");
    }
}

impl From<TcpStream> for Peer {
    fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(limit())).expect("not zero");
        Self(stream)
    }
}

/// Attaches a filter that lets nothing through, so that the kernel drops every packet for this socket.
#[track_caller]
pub fn drop_everything(socket: impl AsFd) {
    let mut accept_no_byte = libc::sock_filter {
        code: u16::try_from(libc::BPF_RET | libc::BPF_K).expect("a small number"),
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut accept_no_byte,
    };
    net::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program).expect("any socket takes a filter");
}

/// A listener that answers no SYN.
#[track_caller]
#[must_use]
pub fn silent_listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address of the sandbox");
    drop_everything(&listener);
    listener
}

/// Where to connect to reach a listener: IPv4 for one that takes both.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => net::Family::V4.address(v6.port()),
        SocketAddr::V6(v6) => v6
            .ip()
            .to_ipv4_mapped()
            .map_or(address, |v4| (v4, v6.port()).into()),
        SocketAddr::V4(_) => address,
    }
}
