//! SO_REUSEADDR, which both the old connections and the new listener must have.

use super::Words;

const RUNTIMES: &[(&str, &str)] = &[
    (
        "c",
        "setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) before bind()",
    ),
    (
        "python",
        "asyncio's servers, http.server and socket.create_server() set it; socketserver.TCPServer needs \
         allow_reuse_address = True, a bare socket setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)",
    ),
    (
        "go",
        "net.Listen and net.ListenConfig set it; a socket from syscall.Socket needs \
         syscall.SetsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1)",
    ),
    (
        "node",
        "net.Server.listen() sets it, and so does what is built on it",
    ),
    (
        "java",
        "ServerSocket and ServerSocketChannel have it on Linux unless setReuseAddress(false) took it away",
    ),
    (
        "rust",
        "TcpListener::bind of std and of tokio sets it; tokio's TcpSocket needs set_reuseaddr(true), socket2's \
         Socket set_reuse_address(true)",
    ),
];

const COST: &str = "None: on Linux it never lets two sockets listen on one port.";

pub(super) static LEFTOVER: Words = Words {
    brief: "wait this once: what is left lacks SO_REUSEADDR; set it for the next restart",
    text: "This restart has to wait for connections that are left without SO_REUSEADDR: they do not get it any more, \
           and the new socket's own does not suffice. The next restart need not wait if the listener sets it before \
           bind().",
    runtimes: RUNTIMES,
    cost: COST,
    will_not_help: &[
        "SO_REUSEADDR on the new socket only: the kernel asks both sockets for it.",
        "Another attempt before the last of them is free.",
    ],
};

pub(super) static LISTENER: Words = Words {
    brief: "set SO_REUSEADDR on the listening socket before bind()",
    text: "Set SO_REUSEADDR on the listening socket before bind(). The connections that it accepts inherit it, and what \
           they leave no longer keeps a restart from its port.",
    runtimes: RUNTIMES,
    cost: COST,
    will_not_help: &[
        "Setting it after connections were accepted: those do not get it.",
        "SO_REUSEPORT in its place: any other process of the user can then take a part of the connections.",
    ],
};
