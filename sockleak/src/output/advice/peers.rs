//! Peers that do not answer, and peers that do not read.

use super::Words;

const USER_TIMEOUT: &[(&str, &str)] = &[
    (
        "c",
        "setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(unsigned){10000}, sizeof(unsigned)), in milliseconds",
    ),
    ("python", "setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, 10000)"),
    (
        "go",
        "unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10000) by SyscallConn().Control",
    ),
    (
        "node",
        "not offered; an addon or a proxy in front of it has to do it",
    ),
    (
        "java",
        "not offered by the JDK; Netty's native transport: EpollChannelOption.TCP_USER_TIMEOUT",
    ),
    ("rust", "socket2::SockRef::set_tcp_user_timeout"),
];

pub(super) static UNREACHABLE: Words = Words {
    brief: "set TCP_USER_TIMEOUT: the kernel keeps trying an unreachable peer for minutes",
    text: "A peer does not acknowledge the end, and the kernel goes on retransmitting for minutes. TCP_USER_TIMEOUT, set \
           while the process lives, bounds that also after its death.",
    runtimes: USER_TIMEOUT,
    cost: "A peer that is only cut off for longer than that loses its connection.",
    will_not_help: &["SO_KEEPALIVE: it does not end what is being retransmitted."],
};

pub(super) static ZERO_WINDOW: Words = Words {
    brief: "set TCP_USER_TIMEOUT, and limit what is queued for a peer that does not read",
    text: "A peer does not read, and the data for it, with its socket and its port, stays for minutes. TCP_USER_TIMEOUT \
           bounds that also after the death; a limit to what is queued for one peer keeps it small.",
    runtimes: USER_TIMEOUT,
    cost: "A slow reader loses its connection and what it had not received.",
    will_not_help: &[
        "SO_KEEPALIVE: the peer is alive and answers.",
        "SO_LINGER with more seconds: a process that dies does not wait for it.",
    ],
};
