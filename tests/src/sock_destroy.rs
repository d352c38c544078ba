//! What the kernel can destroy.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;

use crate::judge;
use crate::limit::wait_until;
use crate::mptcp::{self, Row};
use crate::netlink::Netlink;
use crate::sandbox;

/// include/uapi/linux/sock_diag.h.
pub const SOCK_DESTROY: u16 = 21;

/// Whether this kernel destroys time-wait sockets, tried in a network namespace for that.
#[must_use]
pub fn takes_time_wait() -> bool {
    static TAKES: OnceLock<bool> = OnceLock::new();
    let try_it = || {
        sandbox::enter()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let peer = TcpStream::connect(address)?;
        drop(listener.accept()?);
        drop(peer);
        wait_until("TIME_WAIT", || judge::count(address.port(), "TIME_WAIT") == 1);
        let rows = mptcp::sockets(libc::IPPROTO_TCP, address.port());
        destroy(
            rows.iter()
                .find(|row| row.state == "TIME_WAIT")
                .expect("it is there"),
        )
    };
    *TAKES.get_or_init(|| {
        let tried: io::Result<()> = thread::spawn(try_it).join().expect("a trial does not panic");
        tried.is_ok()
    })
}

fn destroy(row: &Row) -> io::Result<()> {
    let mut request = vec![libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0, 0, 0, 0, 0];
    request.extend(row.local.port().to_be_bytes());
    request.extend(row.remote.port().to_be_bytes());
    request.extend(ipv4(row.local));
    request.extend(ipv4(row.remote));
    request.extend([0; 4]);
    request.extend((row.cookie as u32).to_ne_bytes());
    request.extend(((row.cookie >> 32) as u32).to_ne_bytes());
    let netlink = Netlink::open(libc::NETLINK_SOCK_DIAG);
    netlink.ask(SOCK_DESTROY, libc::NLM_F_ACK, &request).map(drop)
}

/// An IPv4 address in the room for one of IPv6.
fn ipv4(address: SocketAddr) -> [u8; 16] {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("{address} is no IPv4 address")
    };
    let mut room = [0; 16];
    room[..4].copy_from_slice(&ip.octets());
    room
}
