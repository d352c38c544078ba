//! Why the BPF programs could not be loaded, and what to do.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use super::btf::BtfError;
use super::fields::MissingFields;
use super::kernel_types::KernelTypes;
use super::preflight::requirement::Requirement;
use super::preflight::rights::Rights;

/// Why the programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error(transparent)]
    MissingFields(#[from] MissingFields),
    #[error("{}", object(&.0.0))]
    Object(ObjectError),
    #[error("the kernel refused the BPF program {name}: {reason}{}{log}", remedy(reason))]
    Program {
        name: &'static str,
        reason: io::Error,
        log: String,
    },
    #[error("the BPF program {name} cannot be used: {source}")]
    Unusable { name: &'static str, source: ProgramUse },
    #[error(
        "{}\nthis kernel counts the memory of BPF towards RLIMIT_MEMLOCK, which is {} KiB here and only \
         CAP_SYS_RESOURCE may raise: run `sudo prlimit --memlock=unlimited --pid $$` in this shell and try again",
        first_line(error),
        limit >> 10
    )]
    MemoryLimit { error: Box<LoadError>, limit: u64 },
}

/// Why the object could not be loaded, in the loader's words.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ObjectError(EbpfError);

/// Why a program could not be used, in the loader's words.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ProgramUse(ProgramError);

impl LoadError {
    /// Blames the limit of locked memory, where it is why this kernel refused.
    pub(super) fn on(self, kernel: &KernelTypes) -> Self {
        let limit = kernel.limits_memory.then(memory_limit).flatten();
        match limit {
            // aya has raised it where that is allowed, and has tried again.
            Some(limit) if self.denied().is_some() && Rights::read().bpf_capabilities(false).met => {
                let error = Box::new(self);
                Self::MemoryLimit { error, limit }
            }
            _ => self,
        }
    }

    /// What the kernel said when it refused it for want of a right.
    #[must_use]
    pub fn denied(&self) -> Option<&io::Error> {
        let reason = match self {
            Self::Program { reason, .. } => reason,
            Self::Object(ObjectError(EbpfError::MapError(MapError::CreateError { io_error, .. }))) => {
                io_error
            }
            Self::MemoryLimit { error, .. } => return error.denied(),
            _ => return None,
        };
        is_denied(reason).then_some(reason)
    }

    /// In one line: what is missing where a right is, and nothing of what the verifier logged.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.denied() {
            Some(_) if matches!(self, Self::MemoryLimit { .. }) => self.to_string().replace('\n', ": "),
            Some(reason) => {
                let missing = Rights::read().bpf_capabilities(true).detail;
                format!("the kernel refused BPF: {reason}: {missing}")
            }
            None => first_line(self),
        }
    }
}

fn first_line(error: &LoadError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// RLIMIT_MEMLOCK in bytes, if there is a limit.
fn memory_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: The pointer is to one rlimit, which the kernel writes.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    (known && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

impl LoadError {
    /// The object could not be loaded.
    pub(super) const fn of_object(error: EbpfError) -> Self {
        Self::Object(ObjectError(error))
    }
}

fn is_denied(reason: &io::Error) -> bool {
    reason.kind() == io::ErrorKind::PermissionDenied
}

fn object(error: &EbpfError) -> String {
    if let EbpfError::MapError(MapError::CreateError { name, io_error }) = error {
        return format!(
            "the kernel refused the BPF map {name}: {io_error}{}",
            smaller(io_error)
        );
    }
    format!("the BPF object cannot be loaded: {error}")
}

/// What helps where the kernel has no memory for a map.
fn smaller(reason: &io::Error) -> String {
    if reason.raw_os_error() == Some(libc::ENOMEM) {
        return "\nthe maps are as large as --max-sockets says, by default 262144: give it a smaller number"
            .to_owned();
    }
    remedy(reason)
}

/// What to do about what the kernel refuses, in lines of its own.
fn remedy(reason: &io::Error) -> String {
    /// A program calls a function of the kernel, which takes its compiler (`add_kfunc_call`,
    /// kernel/bpf/verifier.c). It is no errno of user space (include/linux/errno.h).
    const ENOTSUPP: i32 = 524;
    if is_denied(reason) {
        let Requirement { detail, fix, .. } = Rights::read().bpf_capabilities(true);
        return format!("\n{detail}\n  fix: {}", fix.unwrap_or_default());
    }
    let told = match reason.raw_os_error() {
        Some(ENOTSUPP) => "the kernel does not compile BPF programs: run `sysctl net.core.bpf_jit_enable=1`",
        Some(libc::ENOSYS) => {
            "the kernel was built without CONFIG_BPF_SYSCALL, or a seccomp filter hides bpf()"
        }
        _ => "run `sockleak check` to see what is missing",
    };
    format!("\n{told}")
}

/// What it means that a program was not loaded or attached.
pub(super) fn refused(name: &'static str, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            // The verifier says the same as the kernel where a right is missing, but with words of its own.
            let rejected = io_error.raw_os_error() == Some(libc::EACCES) && !log.trim().is_empty();
            let reason = if rejected {
                io::Error::other(format!("the verifier rejected it: {io_error}"))
            } else {
                io_error
            };
            LoadError::Program {
                name,
                reason,
                log: if log::log_enabled!(log::Level::Debug) {
                    format!("\n{log}")
                } else {
                    String::new()
                },
            }
        }
        ProgramError::SyscallError(error) => LoadError::Program {
            name,
            reason: error.io_error,
            log: String::new(),
        },
        source => LoadError::Unusable {
            name,
            source: ProgramUse(source),
        },
    }
}
