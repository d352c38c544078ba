//! Ports that outgoing connections use up, and ports that they may take from a service.

use super::Words;

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
