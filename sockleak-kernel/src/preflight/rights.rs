//! What this process is allowed to do, and what to type where that is too little.

use std::os::unix::fs::MetadataExt;
use std::{env, fs, process};

use super::requirement::Requirement;
use crate::proc;

/// Inode of the initial user namespace (PROC_USER_INIT_INO, include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// A capability by number (include/uapi/linux/capability.h) and name, and what it is for.
type Capability = (u32, &'static str, &'static str);

const CAP_SYS_ADMIN: Capability = (21, "CAP_SYS_ADMIN", "enter other network namespaces");

/// Nothing can be traced without these.
const FOR_BPF: [Capability; 2] = [
    (39, "CAP_BPF", "load programs and maps"),
    (38, "CAP_PERFMON", "trace, and read the kernel's structs"),
];

/// Without these the processes and namespaces of others stay dark. The directory /proc/PID/fd needs both of
/// the first two: one for its mode, one for its links (`proc_fd_permission`, fs/proc/fd.c).
const FOR_OTHERS: [Capability; 3] = [
    (
        2,
        "CAP_DAC_READ_SEARCH",
        "find other users' processes that hold a socket",
    ),
    (
        19,
        "CAP_SYS_PTRACE",
        "look into other users' processes and namespaces",
    ),
    CAP_SYS_ADMIN,
];

/// COMMAND cannot become another user without these.
const FOR_IDENTITIES: [Capability; 2] = [
    (6, "CAP_SETGID", "become another group"),
    (7, "CAP_SETUID", "become another user"),
];

/// What the kernel goes by when it is asked for something.
#[derive(Debug)]
pub struct Rights {
    /// Bit `1 << CAP_*` for each.
    pub effective_capabilities: u64,
    /// Those that no program started from here can have more of.
    pub bounding_capabilities: u64,
    pub nested_user_namespace: bool,
    /// A seccomp filter judges the system calls.
    pub seccomp_filter: bool,
    /// Text of `/sys/kernel/security/lockdown`; `None` if the kernel has no lockdown or it cannot be read.
    pub lockdown: Option<String>,
    /// Path of this program, for the commands that fix something.
    pub executable: String,
}

impl Rights {
    /// Reads them. What cannot be read counts as missing.
    #[must_use]
    pub fn read() -> Self {
        let status = proc::status(process::id()).unwrap_or_default();
        let namespace = fs::metadata("/proc/self/ns/user");
        Self {
            effective_capabilities: status.effective_capabilities.unwrap_or(0),
            bounding_capabilities: status.bounding_capabilities.unwrap_or(u64::MAX),
            nested_user_namespace: namespace.is_ok_and(|found| found.ino() != INITIAL_USER_NAMESPACE),
            seccomp_filter: status.seccomp_filter,
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok(),
            executable: env::current_exe().map_or_else(
                |_| env!("CARGO_PKG_NAME").to_owned(),
                |path| path.display().to_string(),
            ),
        }
    }

    /// Whether bpf() may be called. `refused` says that the kernel has refused it.
    #[must_use]
    pub fn bpf_capabilities(&self, refused: bool) -> Requirement {
        const NAME: &str = "bpf_capabilities";
        if self.nested_user_namespace {
            return Requirement::unmet(
                NAME,
                "in a user namespace of its own, whose capabilities, root's too, do not count for BPF",
                "run it on the host as root, or with `docker run --privileged --userns=host --pid=host`",
            );
        }
        // CAP_SYS_ADMIN stands for both (bpf_capable and perfmon_capable, include/linux/capability.h).
        let missing = if self.has(CAP_SYS_ADMIN) {
            Vec::new()
        } else {
            self.missing(&FOR_BPF)
        };
        if missing.is_empty() && refused {
            return self.refused_beside_capabilities(NAME);
        }
        self.capabilities(NAME, &FOR_BPF, &missing)
    }

    /// What else may forbid bpf().
    fn refused_beside_capabilities(&self, name: &'static str) -> Requirement {
        if self.seccomp_filter {
            return Requirement::unmet(
                name,
                "the kernel refuses bpf() although the capabilities are there: this process has a seccomp filter, \
                 which may forbid it",
                "`docker run --security-opt seccomp=unconfined ...`, or SystemCallFilter=bpf in the systemd unit",
            );
        }
        Requirement::unmet(
            name,
            "the kernel refuses bpf() although the capabilities are there: a security module (SELinux, AppArmor) may \
             forbid it",
            "`sudo dmesg | grep -i -e avc -e apparmor` shows what it denied; allow bpf() in its profile",
        )
    }

    /// Whether the processes and namespaces of others can be looked into.
    #[must_use]
    pub fn process_capabilities(&self) -> Requirement {
        const NAME: &str = "process_capabilities";
        if self.nested_user_namespace {
            return Requirement::unmet(
                NAME,
                "in a user namespace of its own: its capabilities do not count for processes and namespaces outside",
                "run it on the host as root",
            )
            .optional();
        }
        self.capabilities(NAME, &FOR_OTHERS, &self.missing(&FOR_OTHERS))
            .optional()
    }

    fn capabilities(&self, name: &'static str, all: &[Capability], missing: &[Capability]) -> Requirement {
        if missing.is_empty() {
            return Requirement::met(name, names(all));
        }
        Requirement::unmet(name, purposes(missing), self.how_to_get(missing))
    }

    /// What to type for capabilities that are missing.
    fn how_to_get(&self, missing: &[Capability]) -> String {
        let path = &self.executable;
        if missing
            .iter()
            .any(|(number, ..)| self.bounding_capabilities >> number & 1 == 0)
        {
            let options: Vec<String> = missing
                .iter()
                .map(|(_, name, _)| format!("--cap-add={}", name.trim_start_matches("CAP_")))
                .collect();
            return format!(
                "no process here may have {}: start the container with `docker run {} ...`, or add it to \
                 CapabilityBoundingSet= of the systemd unit",
                names(missing),
                options.join(" ")
            );
        }
        let mut every: Vec<String> = Vec::new();
        for (_, name, _) in FOR_BPF.iter().chain(&FOR_OTHERS).chain(missing) {
            let name = name.to_lowercase();
            if !every.contains(&name) {
                every.push(name);
            }
        }
        format!(
            "`sudo {path} ...`, or once `sudo setcap {}+ep {path}`",
            every.join(",")
        )
    }

    /// Why COMMAND may not become another user, and what to do, in lines of their own; empty where neither is known.
    #[must_use]
    pub fn identity_remedy(&self) -> String {
        let missing = self.missing(&FOR_IDENTITIES);
        if !missing.is_empty() {
            return format!("\n{}\n  fix: {}", purposes(&missing), self.how_to_get(&missing));
        }
        if self.nested_user_namespace {
            return "\nin a user namespace of its own, which may have no such user\n  fix: give --user one of \
                    /proc/self/uid_map, or run it on the host"
                .to_owned();
        }
        String::new()
    }

    fn missing(&self, wanted: &[Capability]) -> Vec<Capability> {
        wanted
            .iter()
            .filter(|wanted| !self.has(**wanted))
            .copied()
            .collect()
    }

    fn has(&self, (number, ..): Capability) -> bool {
        self.effective_capabilities >> number & 1 == 1
    }

    /// Only `confidentiality` keeps BPF from reading kernel memory (LOCKDOWN_BPF_READ_KERNEL,
    /// include/linux/security.h).
    #[must_use]
    pub fn lockdown(&self) -> Requirement {
        let Some(text) = &self.lockdown else {
            return Requirement::met("lockdown", "none");
        };
        let mode = text
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .map_or("none", |(mode, _)| mode);
        if mode == "confidentiality" {
            return Requirement::unmet(
                "lockdown",
                "confidentiality: programs may not read the kernel's structs",
                "boot with lockdown=integrity (or none) on the kernel's command line",
            );
        }
        Requirement::met("lockdown", mode)
    }
}

/// That they are missing, and what each is for.
fn purposes(missing: &[Capability]) -> String {
    let each: Vec<String> = missing
        .iter()
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    format!("missing {}", each.join(", "))
}

/// Their names, with commas between them.
fn names(capabilities: &[Capability]) -> String {
    let names: Vec<&str> = capabilities.iter().map(|(_, name, _)| *name).collect();
    names.join(", ")
}
