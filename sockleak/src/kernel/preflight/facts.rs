//! What the machine says of itself, before it is judged.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::{env, fs, io, process};

use crate::kernel::btf::BtfError;
use crate::kernel::clock;
use crate::kernel::load::{self, LoadError};
use crate::kernel::netns::Netns;
use crate::kernel::proc;
use crate::kernel::running::Kernel;
use crate::kernel::sock_diag::{Filter, SockDiag, SockDiagError};
use crate::postmortem::{Family, Protocol, State};

/// Inode of the initial user namespace (PROC_USER_INIT_INO, include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Everything that the requirements are judged by.
#[derive(Debug)]
pub struct Facts {
    /// As uname(2) tells it.
    pub release: String,
    pub btf: Result<Kernel, BtfError>,
    /// Bit `1 << CAP_*` for each.
    pub effective_capabilities: u64,
    /// Text of `/sys/kernel/security/lockdown`; `None` if the kernel has no lockdown or it cannot be read.
    pub lockdown: Option<String>,
    /// Whether a trial dump worked.
    pub sock_diag: Result<(), SockDiagError>,
    /// Whether the iterators could be loaded and read, or what was said instead; `None` if it was not tried.
    pub port_table: Option<Result<(), String>>,
    pub nested_pid_namespace: bool,
    pub nested_user_namespace: bool,
    /// Whether the offset of its clocks is known, or why it is not.
    pub time_namespace: Result<(), String>,
    /// Path of this program, for the commands that fix something.
    pub executable: String,
}

/// The running kernel's release, as `uname -r` says it; empty without /proc.
#[must_use]
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|release| release.trim().to_owned())
        .unwrap_or_default()
}

impl Facts {
    /// Reads them from this machine, all but [`Facts::port_table`]. What cannot be read counts as missing.
    #[must_use]
    pub fn gather() -> Self {
        let status = proc::status(process::id()).unwrap_or_default();
        let inode = |path| fs::metadata(path).map(|namespace| namespace.ino());
        Self {
            release: release(),
            btf: Kernel::read(),
            effective_capabilities: status.effective_capabilities.unwrap_or(0),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok(),
            sock_diag: trial_dump(),
            port_table: None,
            nested_pid_namespace: proc::in_nested_pid_namespace().unwrap_or(false),
            nested_user_namespace: inode("/proc/self/ns/user").is_ok_and(|ino| ino != INITIAL_USER_NAMESPACE),
            time_namespace: clock::time_namespace(),
            executable: env::current_exe().map_or_else(
                |_| env!("CARGO_PKG_NAME").to_owned(),
                |path| path.display().to_string(),
            ),
        }
    }

    /// Asks who has one port, of all tables that can be read.
    pub fn try_port_table(&mut self) {
        self.port_table = Some(match &self.btf {
            Ok(kernel) => trial_iterators(kernel),
            Err(error) => Err(error.to_string()),
        });
    }
}

/// Asks for the listeners on one port. That is the smallest dump, and it loads the modules.
fn trial_dump() -> Result<(), SockDiagError> {
    let filter = Filter::all().states(&[State::Listen]).local_ports([1]);
    SockDiag::open(None)?.dump(Protocol::Tcp, Family::Ipv4, &filter)?;
    Ok(())
}

fn trial_iterators(kernel: &Kernel) -> Result<(), String> {
    let mut reader = load::port_reader(kernel).map_err(|error| match error {
        LoadError::Program { name, reason, .. } => {
            format!("the kernel refused the BPF program {name}: {reason}")
        }
        other => other.to_string(),
    })?;
    let told = |error: io::Error| error.to_string();
    let own = Netns::current().map_err(told)?;
    reader.owners(own.as_fd(), &[1]).map_err(told)?;
    reader.files(&[1]).map_err(told)?;
    Ok(())
}
