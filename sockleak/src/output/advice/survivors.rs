//! A listener that outlives its process, or that lives for longer than its process works.

use super::Words;

pub(super) static INHERITED: Words = Words {
    brief: "open the listener with SOCK_CLOEXEC, and close() it in a child that does not exec()",
    text: "A child has the listening socket too, and no bind() gets its port before that child lets go. Open it with \
           SOCK_CLOEXEC (accept4() as well), and close() it in a child that does not exec().",
    runtimes: &[
        (
            "c",
            "socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), accept4(fd, NULL, NULL, SOCK_CLOEXEC)",
        ),
        (
            "python",
            "since 3.4 exec() closes it, unless set_inheritable(True) or pass_fds; os.fork() and multiprocessing's \
             \"fork\" keep it: close it in the child, or use \"spawn\"",
        ),
        ("go", "exec() closes it, unless it is in exec.Cmd.ExtraFiles"),
        (
            "node",
            "exec() closes it; child_process.fork() and cluster hand it over only where the program says so",
        ),
        ("java", "ProcessBuilder closes it in the child"),
        (
            "rust",
            "exec() closes it, unless FD_CLOEXEC was taken away; after a bare fork() the child has to close it",
        ),
    ],
    cost: "None, if the child was not meant to have it.",
    will_not_help: &[
        "SO_REUSEADDR: it never shares a port with a socket that listens.",
        "Waiting: it has no timer, and ends when its holder closes it or ends.",
    ],
};

pub(super) static SURVIVOR: Words = Words {
    brief: "end the holder of this SO_REUSEPORT listener: it gets a part of new connections",
    text: "The listening socket that is still held is in a SO_REUSEPORT group: a restart succeeds, but the kernel gives the \
           survivor a part of the new connections, which hang if its holder does not accept them. End the holder, or \
           close() it there.",
    runtimes: &[
        ("c", "close(fd) in every process that has it"),
        (
            "python",
            "create_server(..., reuse_port=True) makes such a group; close() in the child leaves it",
        ),
        (
            "go",
            "unix.SO_REUSEPORT by net.ListenConfig.Control makes such a group",
        ),
        ("node", "listen({ reusePort: true }) makes such a group"),
        ("java", "StandardSocketOptions.SO_REUSEPORT makes such a group"),
        (
            "rust",
            "set_reuseport(true) of tokio and set_reuse_port(true) of socket2 make such a group",
        ),
    ],
    cost: "Connections in the survivor's queue are reset, unless net.ipv4.tcp_migrate_req hands them on.",
    will_not_help: &["SO_REUSEADDR: it does not take the survivor out of the group."],
};

pub(super) static CORE_DUMP: Words = Words {
    brief: "make the core dump smaller, or restart only when the process is gone",
    text: "Every socket stayed open while the core was written. Make the dump smaller (RLIMIT_CORE, \
           /proc/PID/coredump_filter, madvise() with MADV_DONTDUMP), or start again only when the process is gone.",
    runtimes: &[
        ("c", "setrlimit(RLIMIT_CORE, ...), madvise(p, n, MADV_DONTDUMP)"),
        (
            "python",
            "resource.setrlimit(RLIMIT_CORE, ...); faulthandler tells where it was without a core",
        ),
        ("go", "only GOTRACEBACK=crash makes a panic dump core"),
        (
            "node",
            "only --abort-on-uncaught-exception makes an exception dump core",
        ),
        ("java", "-XX:-CreateCoredumpOnCrash"),
        (
            "rust",
            "panic = \"abort\" makes a panic dump core, unwinding does not",
        ),
    ],
    cost: "Less to look at after the next crash.",
    will_not_help: &[
        "SO_REUSEADDR: the socket still listens.",
        "SIGTERM: only SIGKILL ends a dump, and the core is cut short then.",
    ],
};
