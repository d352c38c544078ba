//! The words for what could not be seen.

use sockleak_core::observed::BlindSpot;

/// One sentence for each.
#[must_use]
pub fn sentences(blind: &[BlindSpot]) -> Vec<String> {
    blind.iter().map(sentence).collect()
}

/// Says what is therefore not known.
pub(super) fn sentence(blind: &BlindSpot) -> String {
    match blind {
        BlindSpot::ExitUnseen => {
            "The exit hook did not see the process: the kernel skipped it, or the process was dying already \
             when it was attached. How it died and what it held is not known."
                .to_owned()
        }
        BlindSpot::OtherTables => {
            "Threads of the process had fd tables of their own: sockets that were only in another one than \
             the last thread's are not listed."
                .to_owned()
        }
        BlindSpot::IoUring => {
            "The process used io_uring, which can hold sockets that are in no fd table: those are not listed."
                .to_owned()
        }
        BlindSpot::SubflowsSkipped { sockets } => {
            format!("Subflows of MPTCP sockets ({sockets}) were not looked at: what those left is not known.")
        }
        BlindSpot::NetnsGone { netns } => format!(
            "The network namespace net:[{netns}] was not there any more: what its sockets left cannot be told."
        ),
        BlindSpot::NetnsRefused { netns, why } => format!(
            "The network namespace net:[{netns}] could not be looked into, so what is left in it is not known: {why}."
        ),
        BlindSpot::TimeWaitsMissing { sockets } => format!(
            "TIME_WAITs are missing ({sockets}) where tcp_max_tw_buckets was reached meanwhile: which of them for that \
             reason is not known."
        ),
        BlindSpot::DescriptorsUnreadable { processes } => format!(
            "The descriptors of some processes ({processes}) could not be read, which needs CAP_SYS_PTRACE and \
             CAP_DAC_READ_SEARCH (sudo): they may hold what nobody is named for."
        ),
        BlindSpot::EphemeralUncounted => {
            "The ports of connect() could not be counted: how many are left for new connections is \
             not known."
                .to_owned()
        }
        BlindSpot::PortReaderRefused { why } => format!(
            "the sockets that have a port cannot be read from the kernel, so options that sock_diag does not tell are not \
             known: {why}"
        ),
        BlindSpot::NoCookies => {
            "this kernel's tracing programs make no socket cookies: sockets are told apart by their addresses"
                .to_owned()
        }
        BlindSpot::FieldMissing { problem } => format!("{problem}, so what depends on it is not known"),
        BlindSpot::NamespacesRefused { processes } => format!(
            "The network namespaces of some processes ({processes}) may not be looked into, which needs root and \
             CAP_SYS_PTRACE: what only those have is not listed."
        ),
        BlindSpot::NetnsUnread { path, why } => format!("{path} was not looked into: {why}"),
        BlindSpot::NestedPidNamespace { lists_bound } => format!(
            "In a PID namespace of its own, such as a container's: processes outside that have the port are not named{}. \
             Ask on the host, or with `docker run --pid=host`.",
            if *lists_bound {
                ""
            } else {
                ", and sockets that are only bound are not listed"
            }
        ),
        BlindSpot::HoldersUnreadable { processes } => format!(
            "The descriptors of some processes ({processes}) may not be read without root: who has a socket may be missing."
        ),
        BlindSpot::PortListRefused { lists_bound, why } => format!(
            "The kernel's list of who has the port could not be read, so SO_REUSEADDR of what is left{} and who else has a \
             descriptor are not known: {why}.",
            if *lists_bound {
                ""
            } else {
                ", sockets that are only bound"
            }
        ),
    }
}
