//! What the kernel says about MPTCP sockets and their subflows, and how it gets a second subflow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::judge;
use crate::netlink::{Netlink, attribute, find};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
/// `struct inet_diag_msg` of include/uapi/linux/inet_diag.h.
const ROW: usize = 72;

/// A socket as sock_diag tells it.
#[derive(Clone, Debug)]
pub struct Row {
    pub state: &'static str,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub cookie: u64,
    /// 0 when no file refers to it.
    pub inode: u64,
}

/// Every IPv4 socket of `IPPROTO_TCP` or `IPPROTO_MPTCP` with that local port.
#[track_caller]
#[must_use]
pub fn sockets(protocol: i32, port: u16) -> Vec<Row> {
    let mut request = vec![2, libc::IPPROTO_RAW as u8, 0, 0];
    request.extend(u32::MAX.to_ne_bytes());
    request.extend([0; 48]);
    request.extend(attribute(INET_DIAG_REQ_PROTOCOL, &protocol.to_ne_bytes()));
    let answers = Netlink::open(libc::NETLINK_SOCK_DIAG).ask(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, &request);
    let rows = answers.expect("the kernel lists its sockets");
    let rows = rows.iter().map(|row| self::row(row));
    rows.filter(|row| row.local.port() == port).collect()
}

fn row(bytes: &[u8]) -> Row {
    assert!(bytes.len() >= ROW, "a row of {} bytes", bytes.len());
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let ip = |at: usize| -> IpAddr {
        match bytes[0] {
            2 => Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four bytes")).into(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes")).into(),
        }
    };
    Row {
        state: judge::state(bytes[1]),
        local: SocketAddr::new(ip(8), port(4)),
        remote: SocketAddr::new(ip(24), port(6)),
        cookie: u64::from(word(44)) | u64::from(word(48)) << 32,
        inode: word(68).into(),
    }
}

/// `include/uapi/linux/mptcp_pm.h` and `mptcp.h`.
const PM_CMD_ADD_ADDR: u8 = 1;
const PM_CMD_SET_LIMITS: u8 = 5;
const PM_ATTR_ADDR: u16 = 1;
const PM_ATTR_RCV_ADD_ADDRS: u16 = 2;
const PM_ATTR_SUBFLOWS: u16 = 3;
const PM_ADDR_ATTR_FAMILY: u16 = 1;
const PM_ADDR_ATTR_ADDR4: u16 = 3;
const PM_ADDR_ATTR_FLAGS: u16 = 6;
const PM_ADDR_FLAG_SUBFLOW: u32 = 2;
const NESTED: u16 = 0x8000;

/// From now on each client of this network namespace opens a second subflow from `address`.
#[track_caller]
pub fn add_subflows_from(address: Ipv4Addr) {
    let netlink = Netlink::open(libc::NETLINK_GENERIC);
    let mut name = vec![libc::CTRL_CMD_GETFAMILY as u8, 1, 0, 0];
    name.extend(attribute(libc::CTRL_ATTR_FAMILY_NAME as u16, b"mptcp_pm\0"));
    let answers = netlink
        .ask(libc::GENL_ID_CTRL as u16, libc::NLM_F_ACK, &name)
        .expect("the kernel has MPTCP's path manager");
    let family = find(&answers[0][4..], libc::CTRL_ATTR_FAMILY_ID as u16).expect("a number");
    let family = u16::from_ne_bytes([family[0], family[1]]);

    let mut limits = vec![PM_CMD_SET_LIMITS, 1, 0, 0];
    for limit in [PM_ATTR_RCV_ADD_ADDRS, PM_ATTR_SUBFLOWS] {
        limits.extend(attribute(limit, &2_u32.to_ne_bytes()));
    }
    let mut endpoint = attribute(PM_ADDR_ATTR_FAMILY, &(libc::AF_INET as u16).to_ne_bytes());
    endpoint.extend(attribute(PM_ADDR_ATTR_ADDR4, &address.octets()));
    endpoint.extend(attribute(PM_ADDR_ATTR_FLAGS, &PM_ADDR_FLAG_SUBFLOW.to_ne_bytes()));
    let mut add = vec![PM_CMD_ADD_ADDR, 1, 0, 0];
    add.extend(attribute(PM_ATTR_ADDR | NESTED, &endpoint));
    for request in [limits, add] {
        let answer = netlink.ask(family, libc::NLM_F_ACK, &request);
        answer.expect("the path manager takes it");
    }
}
