//! What the programs are told of the running kernel and of their task before the load: the object's read-only
//! globals.

use aya::EbpfLoader;
use sockleak_ebpf::{globals, programs};

use super::btf::Btf;
use super::fields::{self, MissingFields, Resolved};

/// Values of every global.
pub struct Globals {
    /// Where the struct members are.
    pub resolved: Vec<Resolved>,
    /// Tracepoints may be preempted, so that the copies of the programs are attached too.
    pub preempted: bool,
    group_dead: u8,
    reset_reason: u8,
    sock_i_uid: u8,
    has_copies: u8,
    sigaction_size: u32,
    /// Tracing programs may call `bpf_get_socket_cookie`.
    pub socket_cookie: u8,
    /// Children of watched processes are watched too.
    pub follow_children: u8,
    /// The walk at exit ends after this many sockets.
    pub max_sockets: u32,
    /// Least level of the programs' log.
    pub log_level: u8,
}

impl Globals {
    /// What BTF tells. The rest is off.
    ///
    /// # Errors
    /// Names every required struct member that the kernel lacks.
    pub fn of(btf: &Btf) -> Result<Self, MissingFields> {
        // The state of a grace period that only preemptible tracepoints have (kernel/tracepoint.c, 7.0 and later).
        let preempted = btf.member("tp_transition_snapshot", &["srcu_gp"]).is_ok();
        Ok(Self {
            resolved: fields::resolve(btf)?,
            preempted,
            group_dead: u8::from(btf.tracepoint_args(programs::SCHED_PROCESS_EXIT) == Some(2)),
            reset_reason: u8::from(btf.tracepoint_args(programs::TCP_SEND_RESET) == Some(3)),
            // Since 6.17 it is an inline function that tells `sk_uid` (include/net/sock.h).
            sock_i_uid: u8::from(btf.function("sock_i_uid").is_some()),
            has_copies: u8::from(preempted),
            sigaction_size: btf.size_of_struct("k_sigaction").unwrap_or(0),
            socket_cookie: 0,
            follow_children: 0,
            max_sockets: 0,
            log_level: 0,
        })
    }

    /// A loader of the object that sets them.
    pub fn loader(&self) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .override_global(globals::HAS_GROUP_DEAD, &self.group_dead, true)
            .override_global(globals::HAS_COPIES, &self.has_copies, true)
            .override_global(globals::HAS_RESET_REASON, &self.reset_reason, true)
            .override_global(globals::HAS_SOCKET_COOKIE, &self.socket_cookie, true)
            .override_global(globals::HAS_SOCK_I_UID, &self.sock_i_uid, true)
            .override_global(globals::FOLLOW_CHILDREN, &self.follow_children, true)
            .override_global(globals::K_SIGACTION_SIZE, &self.sigaction_size, true)
            .override_global(globals::MAX_SOCKETS, &self.max_sockets, true)
            .override_global(aya_log::LEVEL, &self.log_level, false);
        for field in &self.resolved {
            loader.override_global(field.field.global, &field.value, true);
        }
        loader
    }
}
