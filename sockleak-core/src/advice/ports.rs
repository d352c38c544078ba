//! Ports that outgoing connections use up, and ports that they may take from a service.

use super::{Fact, Facts, Grounds, Words, given, last_free, local_ports};
use crate::expiry::Freedom;
use crate::observed::Socket;
use crate::port::Ephemeral;
use crate::verdict::{FreeRule, Outcome};

const POOLS: &[(&str, &str)] = &[
    (
        "c",
        "one connection for many requests; setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){1}, sizeof(int)) \
         before bind()",
    ),
    (
        "python",
        "requests.Session, one httpx.Client or aiohttp.ClientSession for all requests",
    ),
    (
        "go",
        "one http.Client for all requests, every body read to its end and closed; Transport.MaxIdleConnsPerHost is 2 \
         unless it is set",
    ),
    (
        "node",
        "http.Agent with keepAlive: true, which the global one has since 19",
    ),
    (
        "java",
        "one java.net.http.HttpClient for all requests; a pool such as HikariCP for databases",
    ),
    (
        "rust",
        "one reqwest::Client for all requests; a pool such as deadpool or r2d2 for databases",
    ),
];

pub(super) static EXHAUSTION: Words = Words {
    brief: "use connections again (a pool), or use more local addresses",
    text: "Ports towards a destination run out. Keep connections in a pool and use them again. If there must be so many: \
           more local addresses, each with IP_BIND_ADDRESS_NO_PORT before bind(), or more addresses or ports of the \
           destination. net.ipv4.tcp_tw_reuse=1 lets connect() take over a TIME_WAIT after a second, if the peer uses TCP \
           timestamps.",
    runtimes: POOLS,
    cost: "A pool has to notice what the peer has closed. tcp_tw_reuse holds for the whole namespace and trusts \
           timestamps to tell old segments from new ones.",
    will_not_help: &[
        "SO_REUSEADDR: connect() does not ask for it.",
        "tcp_tw_reuse against FIN_WAIT2: only TIME_WAIT is taken over.",
        "A higher limit of open files: there are descriptors, but no ports.",
    ],
};

pub(super) static CHURN: Words = Words {
    brief: "use connections again (a pool): each closed one keeps its port for a minute",
    text: "The process itself closed many short connections, and each keeps its port for a minute. Keep connections in a \
           pool and use them again.",
    runtimes: POOLS,
    cost: "A pool has to notice what the peer has closed, and idle connections cost memory on both sides.",
    will_not_help: &[
        "SO_LINGER with 0 seconds: it resets the peer, and what was not sent is lost.",
        "Ending the process: what it closed belongs to the kernel.",
    ],
};

pub(super) static FIXED_PORT: Words = Words {
    brief: "add the port to net.ipv4.ip_local_reserved_ports if its number is fixed",
    text: "It listened on a port that the kernel also gives to outgoing connections, one of which may take it while the \
           service is away. If the number is fixed, add it to net.ipv4.ip_local_reserved_ports, or use one outside of \
           ip_local_port_range.",
    runtimes: &[(
        "any",
        "sysctl -w net.ipv4.ip_local_reserved_ports=PORT, beside what is there already",
    )],
    cost: "One port fewer for outgoing connections; bind() may still ask for it.",
    will_not_help: &["SO_REUSEADDR: the outgoing connection that sits on the port does not have it."],
};

/// Fewer closed connections than these come from ordinary work.
const MANY: u64 = 100;

fn runs_out(row: &Ephemeral) -> bool {
    let usable = row.range_total - row.reserved;
    row.connect_fails != Some(false) || row.available * 10 < usable
}

pub(super) fn ephemeral_exhaustion(facts: &Facts<'_>) -> Option<Grounds> {
    let scarce: Vec<&Ephemeral> = facts
        .report
        .ephemeral
        .iter()
        .filter(|row| runs_out(row))
        .collect();
    let free_at: Vec<Freedom> = scarce
        .iter()
        .map(|row| Freedom::new(FreeRule::Unknown, row.free_at, row.free_at_latest))
        .collect();
    let count = scarce.len() as u64;
    let evidence = vec![
        ("destinations", Fact::Count(count)),
        (
            "leftovers",
            Fact::Count(scarce.iter().map(|row| row.in_use).sum()),
        ),
        (
            "available_ports",
            Fact::Count(scarce.iter().map(|row| row.available).min().unwrap_or_default()),
        ),
        ("free_at", last_free(free_at.iter())),
    ];
    given(count, evidence)
}

pub(super) fn time_wait_churn(facts: &Facts<'_>) -> Option<Grounds> {
    let waits = |outcome| matches!(outcome, Outcome::TimeWait | Outcome::FinWait2);
    let closed = || {
        facts
            .live
            .iter()
            .filter(|(socket, left)| waits(left.outcome()) && !facts.is_accepted(socket))
    };
    let count = closed().count() as u64;
    let evidence = vec![
        ("sockets", Fact::Count(count)),
        ("free_at", last_free(closed().map(|(_, left)| &left.freedom))),
    ];
    given(count, evidence).filter(|_| count >= MANY)
}

pub(super) fn fixed_port_in_ephemeral_range(facts: &Facts<'_>) -> Option<Grounds> {
    let may_be_taken = |socket: &Socket| {
        let mut looks = facts.snapshots.iter().filter(|look| look.netns == socket.netns);
        let rules = looks.find_map(|look| look.local_ports.as_ref());
        rules.is_some_and(|rules| rules.has(socket.local.port()))
    };
    let exposed = || facts.every_listener().filter(|socket| may_be_taken(socket));
    let count = exposed().count() as u64;
    let evidence = vec![
        ("listeners", Fact::Count(count)),
        ("ports", local_ports(exposed())),
    ];
    given(count, evidence)
}
