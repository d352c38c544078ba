//! How connections end: who closes first, and with what unread or unsent.

use super::{Fact, Facts, Grounds, Words, given, last_free};
use crate::observed::Cause;
use crate::verdict::{Outcome, Why};

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

/// SIGHUP, SIGINT and SIGTERM: a process can prepare for its end by these.
const ANNOUNCED: [u8; 3] = [1, 2, 15];

/// A crash gives no occasion to close in a better order. What the process closed or shut down itself does, and so
/// does an end that it chose or that was announced to it.
pub(super) fn closing_side(facts: &Facts<'_>) -> Option<Grounds> {
    let announced = facts
        .report
        .death
        .as_ref()
        .is_some_and(|death| match death.cause {
            Cause::Exit { .. } => true,
            Cause::Signal { signal, .. } => ANNOUNCED.contains(&signal),
        });
    let waits = |outcome| matches!(outcome, Outcome::TimeWait | Outcome::FinWait2);
    let at_the_end = facts.sockets().filter(|report| match report.why {
        Why::ShutdownBefore => true,
        Why::ClosedByKernel => announced,
        _ => false,
    });
    let at_the_end = at_the_end.map(|report| (report.socket.as_ref(), report.outcome, &report.freedom));
    let before = facts
        .live
        .iter()
        .map(|(socket, left)| (*socket, left.outcome(), &left.freedom));
    let closed: Vec<_> = at_the_end
        .chain(before)
        .filter(|(socket, outcome, _)| waits(*outcome) && facts.is_accepted(socket))
        .collect();
    let count = closed.len() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        (
            "free_at",
            last_free(closed.iter().map(|(_, _, freedom)| *freedom)),
        ),
    ];
    given(count, evidence)
}

pub(super) fn unread_data_reset(facts: &Facts<'_>) -> Option<Grounds> {
    let unread = || facts.sockets().filter(|report| report.why == Why::UnreadData);
    let bytes = unread().map(|report| u64::from(report.socket.unread_bytes)).sum();
    let count = unread().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("unread_bytes", Fact::Count(bytes)),
    ];
    given(count, evidence)
}

pub(super) fn linger_zero(facts: &Facts<'_>) -> Option<Grounds> {
    let used = || facts.sockets().filter(|report| report.why == Why::LingerZero);
    let bytes = used().map(|report| u64::from(report.socket.unacked_bytes)).sum();
    let count = used().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("unsent_bytes", Fact::Count(bytes)),
    ];
    given(count, evidence)
}
