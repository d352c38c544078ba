//! The one table of kernel struct members that the programs read.
//!
//! No offset is written down anywhere: user space looks each member up in the running kernel's BTF
//! and sets the read-only global of that name before the load, so one object serves every kernel.

/// Value of a field's global when the kernel has no such member.
pub const MISSING: u32 = u32::MAX;

/// Calls `$callback!` with the table.
///
/// A row is `GLOBAL: struct.path.to.member, kind width, need;`. `bytes N` is a member of N bytes and
/// its global is a byte offset; `bits N` is a member of N bits (a bit field, or a flag that was one)
/// and its global is a bit offset; `array` is an embedded array or struct whose width does not
/// matter. A path runs through nested structs and finds members of anonymous ones. `required` ends
/// the start with an error that names the member, `optional` switches off what needs it.
#[macro_export]
macro_rules! kernel_fields {
    ($callback:ident) => {
        $callback! {
            TASK_TGID: task_struct.tgid, bytes 4, required;
            TASK_GROUP_LEADER: task_struct.group_leader, bytes 8, required;
            TASK_SIGNAL: task_struct.signal, bytes 8, required;
            TASK_SIGHAND: task_struct.sighand, bytes 8, required;
            TASK_FILES: task_struct.files, bytes 8, required;
            TASK_EXIT_CODE: task_struct.exit_code, bytes 4, required;
            TASK_START_BOOTTIME: task_struct.start_boottime, bytes 8, required;
            TASK_COMM: task_struct.comm, bytes 16, required;
            TASK_THREAD_PID: task_struct.thread_pid, bytes 8, required;
            TASK_IO_URING: task_struct.io_uring, bytes 8, optional;
            TASK_CFS_RQ: task_struct.se.cfs_rq, bytes 8, optional;
            CFS_RQ_RQ: cfs_rq.rq, bytes 8, optional;
            RQ_CURR: rq.curr, bytes 8, optional;
            SIGNAL_LIVE: signal_struct.live, bytes 4, required;
            SIGNAL_FLAGS: signal_struct.flags, bytes 4, required;
            SIGNAL_GROUP_EXIT_CODE: signal_struct.group_exit_code, bytes 4, required;
            SIGNAL_OOM_MM: signal_struct.oom_mm, bytes 8, optional;
            SIGHAND_ACTION: sighand_struct.action, array, required;
            K_SIGACTION_HANDLER: k_sigaction.sa.sa_handler, bytes 8, required;
            SIGINFO_CODE: kernel_siginfo.si_code, bytes 4, required;
            PID_LEVEL: pid.level, bytes 4, required;
            PID_NUMBERS: pid.numbers, array, required;
            UPID_NR: upid.nr, bytes 4, required;
            FILES_COUNT: files_struct.count, bytes 4, required;
            FILES_FDT: files_struct.fdt, bytes 8, required;
            FDT_MAX_FDS: fdtable.max_fds, bytes 4, required;
            FDT_FD: fdtable.fd, bytes 8, required;
            FDT_OPEN_FDS: fdtable.open_fds, bytes 8, required;
            FILE_INODE: file.f_inode, bytes 8, required;
            FILE_PRIVATE_DATA: file.private_data, bytes 8, required;
            FILE_COUNT: file.f_count, bytes 8, optional;
            FILE_REF: file.f_ref, bytes 8, optional;
            INODE_MODE: inode.i_mode, bytes 2, required;
            INODE_INO: inode.i_ino, bytes 8, required;
            INODE_UID: inode.i_uid, bytes 4, required;
            SOCKET_SK: socket.sk, bytes 8, required;
            SOCKET_OPS: socket.ops, bytes 8, required;
            OPS_FAMILY: proto_ops.family, bytes 4, required;
            SOCKET_FILE: socket.file, bytes 8, required;
            SOCKET_INODE: socket_alloc.vfs_inode, array, required;
            SK_DADDR: sock_common.skc_daddr, bytes 4, required;
            SK_RCV_SADDR: sock_common.skc_rcv_saddr, bytes 4, required;
            SK_DPORT: sock_common.skc_dport, bytes 2, required;
            SK_NUM: sock_common.skc_num, bytes 2, required;
            SK_FAMILY: sock_common.skc_family, bytes 2, required;
            SK_STATE: sock_common.skc_state, bytes 1, required;
            SK_REUSE: sock_common.skc_reuse, bits 4, required;
            SK_REUSEPORT: sock_common.skc_reuseport, bits 1, required;
            SK_IPV6ONLY: sock_common.skc_ipv6only, bits 1, required;
            SK_BOUND_DEV_IF: sock_common.skc_bound_dev_if, bytes 4, required;
            SK_NET: sock_common.skc_net.net, bytes 8, required;
            SK_V6_DADDR: sock_common.skc_v6_daddr, array, optional;
            SK_V6_RCV_SADDR: sock_common.skc_v6_rcv_saddr, array, optional;
            SK_COOKIE: sock_common.skc_cookie, bytes 8, required;
            SK_FLAGS: sock_common.skc_flags, bytes 8, required;
            SK_PROTOCOL: sock.sk_protocol, bytes 2, required;
            SK_SOCKET: sock.sk_socket, bytes 8, required;
            SK_SHUTDOWN: sock.sk_shutdown, bits 8, required;
            SK_LINGERTIME: sock.sk_lingertime, bytes 8, required;
            SK_ACK_BACKLOG: sock.sk_ack_backlog, bytes 4, required;
            SK_ERR: sock.sk_err, bytes 4, optional;
            SK_UID: sock.sk_uid, bytes 4, optional;
            INET_SPORT: inet_sock.inet_sport, bytes 2, required;
            INET_FREEBIND: inet_sock.freebind, bits 1, optional;
            INET_TRANSPARENT: inet_sock.transparent, bits 1, optional;
            INET_FLAGS: inet_sock.inet_flags, bytes 8, optional;
            ICSK_BIND_HASH: inet_connection_sock.icsk_bind_hash, bytes 8, optional;
            TW_SUBSTATE: inet_timewait_sock.tw_substate, bytes 1, required;
            TW_TB: inet_timewait_sock.tw_tb, bytes 8, optional;
            TB_L3MDEV: inet_bind_bucket.l3mdev, bytes 4, optional;
            TB_FASTREUSE: inet_bind_bucket.fastreuse, bytes 1, optional;
            TB_FASTREUSEPORT: inet_bind_bucket.fastreuseport, bytes 1, optional;
            TB_FASTUID: inet_bind_bucket.fastuid, bytes 4, optional;
            TB_FAST_SK_FAMILY: inet_bind_bucket.fast_sk_family, bytes 2, optional;
            TB_FAST_RCV_SADDR: inet_bind_bucket.fast_rcv_saddr, bytes 4, optional;
            TB_FAST_V6_RCV_SADDR: inet_bind_bucket.fast_v6_rcv_saddr, array, optional;
            TB_FAST_IPV6_ONLY: inet_bind_bucket.fast_ipv6_only, bytes 1, optional;
            TCP_RCV_NXT: tcp_sock.rcv_nxt, bytes 4, required;
            TCP_COPIED_SEQ: tcp_sock.copied_seq, bytes 4, required;
            TCP_WRITE_SEQ: tcp_sock.write_seq, bytes 4, required;
            TCP_SND_UNA: tcp_sock.snd_una, bytes 4, required;
            TCP_REPAIR: tcp_sock.repair, bits 1, optional;
            TCP_LINGER2: tcp_sock.linger2, bytes 4, optional;
            NET_INUM: net.ns.inum, bytes 4, required;
            LIST_NEXT: list_head.next, bytes 8, required;
            MPTCP_FIRST: mptcp_sock.first, bytes 8, optional;
            MPTCP_CONN_LIST: mptcp_sock.conn_list, array, optional;
            SUBFLOW_NODE: mptcp_subflow_context.node, array, optional;
            SUBFLOW_TCP_SOCK: mptcp_subflow_context.tcp_sock, bytes 8, optional;
        }
    };
}
