//! How connections end: who closes first, and with what unread or unsent.

use super::Words;

pub(super) static CLOSING_SIDE: Words = Words {
    brief: "let the client close first, so that TIME_WAIT is not on the server's port",
    text: "The server closed connections before its clients did, so the minute of TIME_WAIT is spent on its own port. Let \
           the client close first, by an idle timeout that is longer than its own or by a word of the protocol: read() \
           until it returns 0, with a time limit, and only then close().",
    runtimes: &[
        (
            "c",
            "while (read(fd, buffer, sizeof buffer) > 0) {} with SO_RCVTIMEO, then close(fd)",
        ),
        (
            "python",
            "recv() until b\"\" with settimeout(), then close(); asyncio: await reader.read() before writer.close()",
        ),
        ("go", "SetReadDeadline and io.Copy(io.Discard, conn), then Close"),
        (
            "node",
            "net.createServer({ allowHalfOpen: true }), and socket.end() in the 'end' event, with setTimeout()",
        ),
        ("java", "setSoTimeout() and read() until -1, then close()"),
        ("rust", "set_read_timeout() and read() until Ok(0), then drop"),
    ],
    cost: "The client has the TIME_WAIT then, and one that never closes keeps its connection until the limit.",
    will_not_help: &[
        "shutdown() before the client has closed: it sends the first FIN as well.",
        "SO_LINGER with 0 seconds: it resets the client, and what was not sent is lost.",
    ],
};

pub(super) static UNREAD: Words = Words {
    brief: "read() to the end before close(): unread data makes it a reset for the peer",
    text: "Received data was never read, so the kernel reset the peer, which may have lost the last answer as well. Before \
           the end, read() to the end; or shutdown(fd, SHUT_WR), read() until it returns 0, and only then close().",
    runtimes: &[
        (
            "c",
            "shutdown(fd, SHUT_WR), then read() until it returns 0, then close(fd)",
        ),
        (
            "python",
            "shutdown(SHUT_WR), then recv() until b\"\", then close()",
        ),
        (
            "go",
            "(*net.TCPConn).CloseWrite and io.Copy(io.Discard, conn), then Close",
        ),
        ("node", "socket.end(), and socket.resume() so that 'end' comes"),
        ("java", "shutdownOutput(), then read() until -1, then close()"),
        (
            "rust",
            "shutdown(Shutdown::Write), then read() until Ok(0), then drop; tokio: AsyncWriteExt::shutdown",
        ),
    ],
    cost: "The end waits for the peer: set a time limit.",
    will_not_help: &[
        "SO_LINGER: the kernel looks for unread data first.",
        "A pause before close(): the data stays unread.",
    ],
};

pub(super) static LINGER: Words = Words {
    brief: "leave SO_LINGER 0 off: it resets the peer and loses what was not sent",
    text: "SO_LINGER with 0 seconds was set: the end throws away what was not sent and resets the peer. That is a last \
           resort which loses data, not a way around TIME_WAIT. Leave it off, and end with shutdown(fd, SHUT_WR) and read() \
           until it returns 0.",
    runtimes: &[
        (
            "c",
            "setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){0}, sizeof(struct linger)) takes it back",
        ),
        (
            "python",
            "it is setsockopt(SOL_SOCKET, SO_LINGER, struct.pack(\"ii\", 1, 0))",
        ),
        ("go", "it is SetLinger(0); SetLinger(-1) takes it back"),
        ("node", "it is socket.resetAndDestroy()"),
        (
            "java",
            "it is setSoLinger(true, 0); setSoLinger(false, 0) takes it back",
        ),
        (
            "rust",
            "it is set_linger(Some(Duration::ZERO)) of socket2 and tokio; set_linger(None) takes it back",
        ),
    ],
    cost: "The side that closes first has a TIME_WAIT again, for a minute.",
    will_not_help: &["SO_LINGER with more seconds: a process that dies does not wait for it."],
};
