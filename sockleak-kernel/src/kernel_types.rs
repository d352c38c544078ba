//! What the running kernel's BTF tells that is needed here: read once, and kept without the BTF.

use sockleak_ebpf::programs;

use super::btf::{Btf, BtfError, Ids};
use super::fields::{self, MissingFields, RUN_QUEUE, Resolved};
use super::kfunc::{CAST, Casts, Kfuncs, PREEMPTION};

const SOCK_I_UID: &str = "sock_i_uid";
/// A helper is a function of its name (`BPF_CALL_1`, include/linux/filter.h).
const SOCK_FROM_FILE: &str = "bpf_sock_from_file";

/// The running kernel, as its BTF shows it.
#[derive(Debug)]
pub struct KernelTypes {
    /// Where the struct members are.
    pub fields: Vec<Resolved>,
    /// Tracepoints may be preempted, so that the copies of the programs are attached too.
    pub preempted: bool,
    /// `sched_process_exit` tells whether the last thread ended.
    pub group_dead: bool,
    /// `tcp_send_reset` tells why.
    pub reset_reason: bool,
    /// The socket's owner comes from a function.
    pub sock_i_uid: bool,
    /// Iterators have the helper that tells the socket of a file.
    pub sock_from_file: bool,
    /// In bytes; 0 if it is not known.
    pub sigaction_size: u32,
    /// Names of `enum sk_rst_reason`, by number; empty before 6.10.
    pub reset_reasons: Vec<(String, i64)>,
    /// What the programs may call.
    pub kfuncs: Kfuncs,
    /// A program may allocate the entry of a map wherever it runs.
    pub allocates_entries: bool,
    /// The memory of maps and programs is limited by RLIMIT_MEMLOCK.
    pub limits_memory: bool,
    tracepoint: Ids,
    iterators: Ids,
}

impl KernelTypes {
    /// Reads it.
    ///
    /// # Errors
    /// When the kernel has no BTF, or it cannot be read.
    pub fn read() -> Result<Self, BtfError> {
        Btf::running().map(|btf| Self::of(&btf))
    }

    fn of(btf: &Btf) -> Self {
        let visited = programs::ITERATORS.map(|(_, visited)| format!("bpf_iter_{visited}"));
        let [of_tcp, of_files] = &visited;
        let [disable, enable, save, restore] = PREEMPTION.map(|(_, name)| name);
        let [sock_i_uid, sock_from_file, tcp, files, cast, preemption @ ..] = btf.functions([
            SOCK_I_UID,
            SOCK_FROM_FILE,
            of_tcp,
            of_files,
            CAST,
            disable,
            enable,
            save,
            restore,
        ]);
        let mut iterators = Ids::default();
        iterators.add_function(of_tcp, tcp);
        iterators.add_function(of_files, files);
        let mut tracepoint = Ids::default();
        let typed = programs::INET_SOCK_SET_STATE;
        tracepoint.add_tracepoint(typed, btf.tracepoint(typed));
        // The state of a grace period that only preemptible tracepoints have (kernel/tracepoint.c, 7.0 and later).
        let preempted = btf.member("tp_transition_snapshot", &["srcu_gp"]).is_ok();
        let fields = fields::look_up(btf);
        let mut queue = fields.iter().filter(|row| RUN_QUEUE.contains(&row.field.global));
        let has_queue = queue.all(|row| row.problem.is_none());
        // Before 6.10, which has the first of these functions too, the number of a processor takes a call
        // (`do_misc_fixups`, kernel/bpf/verifier.c), so that nothing would be won. Whether something is won on other
        // processors than x86-64 was not measured.
        let numbered = cfg!(target_arch = "x86_64") && preemption[0].is_some();
        let casts = cast.zip(btf.id_of_struct("task_struct"));
        Self {
            fields,
            preempted,
            group_dead: btf.tracepoint_args(programs::SCHED_PROCESS_EXIT) == Some(2),
            reset_reason: btf.tracepoint_args(programs::TCP_SEND_RESET) == Some(3),
            // Since 6.17 it is an inline function that tells `sk_uid` (include/net/sock.h).
            sock_i_uid: sock_i_uid.is_some(),
            sock_from_file: sock_from_file.is_some(),
            sigaction_size: btf.size_of_struct("k_sigaction").unwrap_or(0),
            reset_reasons: btf.enum_values("sk_rst_reason"),
            kfuncs: Kfuncs {
                preemption: all(preemption).filter(|_| preempted),
                casts: casts
                    .filter(|_| numbered && has_queue)
                    .map(|(function, task_struct)| Casts {
                        function,
                        task_struct,
                    }),
            },
            // The allocator that is safe in every context (kernel/bpf/memalloc.c). It came with 6.1; a kernel without it
            // warns of tracepoint programs with maps that allocate (`check_map_prog_compatibility`, kernel/bpf/verifier.c).
            allocates_entries: btf.member("bpf_htab", &["ma"]).is_ok(),
            // Where it is counted, until 5.10.
            limits_memory: btf.id_of_struct("bpf_map_memory").is_some(),
            tracepoint,
            iterators,
        }
    }

    /// The struct members, if none is missing without which nothing can be traced.
    ///
    /// # Errors
    /// Names every required member that is missing or has another width.
    pub fn traceable_fields(&self) -> Result<&[Resolved], MissingFields> {
        fields::refuse_missing(&self.fields)?;
        Ok(&self.fields)
    }

    /// The id of the one tracepoint whose program has typed arguments, as aya wants it.
    #[must_use]
    pub(super) fn tracepoint(&self) -> aya::Btf {
        self.tracepoint.to_btf()
    }

    /// The ids of what the iterators visit, as aya wants them.
    #[must_use]
    pub(super) fn iterators(&self) -> aya::Btf {
        self.iterators.to_btf()
    }
}

/// All of the ids, or none.
fn all<const N: usize>(ids: [Option<u32>; N]) -> Option<[u32; N]> {
    let known: Vec<u32> = ids.into_iter().flatten().collect();
    known.try_into().ok()
}
