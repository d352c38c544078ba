//! What sockleak needs of the machine, and what to type where something is missing.

mod facts;
pub(super) mod requirement;
pub(super) mod rights;
#[cfg(test)]
mod tests;

pub use facts::{Facts, boot_id, release};
pub use requirement::Requirement;
pub use rights::Rights;

use super::fields::Resolved;
use super::sock_diag::SockDiagError;

/// The first kernel with BTF-typed tracepoints, the ring buffer and pidfds as they are used here. Only a
/// floor: what a kernel can do is asked of its BTF.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Looks at this machine. One entry for each requirement, in the order in which a person would fix them.
#[must_use]
pub fn requirements() -> Vec<Requirement> {
    let mut facts = Facts::gather();
    facts.try_port_table();
    facts.requirements()
}

impl Facts {
    /// Judges what was gathered.
    #[must_use]
    pub fn requirements(&self) -> Vec<Requirement> {
        let mut all = vec![self.kernel(), self.btf()];
        if let Ok(kernel) = &self.btf {
            all.extend(of_fields(&kernel.fields));
        }
        all.extend([
            self.rights.bpf_capabilities(self.bpf_refused),
            self.rights.process_capabilities(),
            self.rights.lockdown(),
            self.pid_namespace(),
            self.time_namespace(),
            self.sock_diag(),
        ]);
        all.extend(self.port_table());
        all
    }

    fn kernel(&self) -> Requirement {
        let (major, minor) = OLDEST_KERNEL;
        match version(&self.release) {
            Some(found) if found < OLDEST_KERNEL => Requirement::unmet(
                "kernel",
                format!("Linux {} is older than {major}.{minor}", self.release),
                format!("boot Linux {major}.{minor} or later"),
            ),
            _ => Requirement::met("kernel", format!("Linux {}", self.release)),
        }
    }

    fn btf(&self) -> Requirement {
        match &self.btf {
            Ok(_) => Requirement::met("btf", super::btf::RUNNING),
            Err(error) => Requirement::unmet(
                "btf",
                error.to_string(),
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, and in a container mount /sys",
            ),
        }
    }

    fn pid_namespace(&self) -> Requirement {
        if self.nested_pid_namespace {
            return Requirement::unmet(
                "pid_namespace",
                "in a PID namespace of its own: the kernel's events name processes by other numbers",
                "run it on the host, or start the container with `docker run --privileged --pid=host`",
            );
        }
        Requirement::met("pid_namespace", "the initial one")
    }

    fn time_namespace(&self) -> Requirement {
        match &self.time_namespace {
            Ok(()) => Requirement::met("time_namespace", "the offset of its clocks is known"),
            Err(why) => Requirement::unmet(
                "time_namespace",
                why,
                format!(
                    "start it as a child: `sh -c '{} ...; exit $?'`",
                    self.rights.executable
                ),
            ),
        }
    }

    fn sock_diag(&self) -> Requirement {
        match &self.sock_diag {
            Ok(()) => Requirement::met("sock_diag", "lists TCP sockets"),
            Err(error @ SockDiagError::Io(_)) => Requirement::unmet(
                "sock_diag",
                error.to_string(),
                "allow netlink sockets in the seccomp filter (RestrictAddressFamilies=AF_NETLINK in the systemd unit)",
            ),
            Err(error) => Requirement::unmet("sock_diag", error.to_string(), "`sudo modprobe tcp_diag`"),
        }
    }

    fn port_table(&self) -> Option<Requirement> {
        const NAME: &str = "port_table";
        let found = match self.port_table.as_ref()? {
            Ok(()) => Requirement::met(NAME, "tells who has a port, and with which options"),
            Err(told) => {
                // With the capabilities it is the kernel that cannot do it.
                let capabilities = self.rights.bpf_capabilities(self.bpf_refused);
                let fix = capabilities.fix.unwrap_or_else(|| {
                    "nothing needs to be done; options that sock_diag does not tell are unknown then"
                        .to_owned()
                });
                Requirement::unmet(NAME, told, fix)
            }
        };
        Some(found.optional())
    }
}

/// What the programs read of the kernel's structs: the required members, and the optional ones.
#[must_use]
pub fn of_fields(rows: &[Resolved]) -> [Requirement; 2] {
    let (required, optional): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.field.required);
    let problems: Vec<String> = required
        .iter()
        .filter_map(|row| Some(row.problem.as_ref()?.to_string()))
        .collect();
    let required = if problems.is_empty() {
        Requirement::met("fields", format!("all {} struct members found", required.len()))
    } else {
        Requirement::unmet(
            "fields",
            problems.join("; "),
            "run a sockleak that knows this kernel, or boot another kernel",
        )
    };
    let off: Vec<String> = optional
        .iter()
        .filter(|row| row.is_missed(rows))
        .map(|row| format!("{}.{}", row.field.structure, row.field.member_name()))
        .collect();
    let optional = if off.is_empty() {
        Requirement::met("optional_fields", "nothing is switched off")
    } else {
        Requirement::unmet(
            "optional_fields",
            format!("switched off, as this kernel has no {}", off.join(", ")),
            "nothing needs to be done; reports say what they do not know",
        )
    };
    [required, optional.optional()]
}

/// Major and minor version of a release such as `6.1.0-18-amd64`; `None` if it does not begin like one.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
