//! What the machine says of itself, before it is judged.

use std::os::fd::AsFd;
use std::{fs, io};

use sockleak_core::observed::{Family, Protocol, State};

use super::rights::Rights;
use crate::btf::BtfError;
use crate::clock;
use crate::kernel_types::KernelTypes;
use crate::netns::Netns;
use crate::port_table::PortReader;
use crate::proc;
use crate::sock_diag::{Filter, SockDiag, SockDiagError};

/// Everything that the requirements are judged by.
#[derive(Debug)]
pub struct Facts {
    /// As uname(2) tells it.
    pub release: String,
    pub btf: Result<KernelTypes, BtfError>,
    pub rights: Rights,
    /// Whether a trial dump worked.
    pub sock_diag: Result<(), SockDiagError>,
    /// Whether the iterators could be loaded and read, or what was said instead; `None` if it was not tried.
    pub port_table: Option<Result<(), String>>,
    /// They were refused for want of a right.
    pub bpf_refused: bool,
    pub nested_pid_namespace: bool,
    /// Whether it can work in its time namespace, or why it cannot.
    pub time_namespace: Result<(), String>,
}

/// The running kernel's release, as `uname -r` says it; empty without /proc.
#[must_use]
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|release| release.trim().to_owned())
        .unwrap_or_default()
}

/// What tells this boot of the machine from every other (random(4)); `None` where /proc is hidden.
#[must_use]
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

impl Facts {
    /// Reads them from this machine, all but [`Facts::port_table`]. What cannot be read counts as missing.
    #[must_use]
    pub fn gather() -> Self {
        Self {
            release: release(),
            btf: KernelTypes::read(),
            rights: Rights::read(),
            sock_diag: trial_dump(),
            port_table: None,
            bpf_refused: false,
            nested_pid_namespace: proc::in_nested_pid_namespace().unwrap_or(false),
            time_namespace: clock::time_namespace(),
        }
    }

    /// Asks who has one port, of all tables that can be read.
    pub fn try_port_table(&mut self) {
        let mut refused = false;
        let reader = match &self.btf {
            Ok(kernel) => PortReader::load(kernel).map_err(|error| {
                refused = error.denied().is_some();
                error.sentence()
            }),
            Err(error) => Err(error.to_string()),
        };
        self.bpf_refused = refused;
        self.port_table =
            Some(reader.and_then(|reader| read_once(reader).map_err(|error| error.to_string())));
    }
}

/// Asks for the listeners on one port. That is the smallest dump, and it loads the modules.
fn trial_dump() -> Result<(), SockDiagError> {
    let filter = Filter::all().states(&[State::Listen]).local_ports([1]);
    SockDiag::open(None)?.dump(Protocol::Tcp, Family::Ipv4, &filter)?;
    Ok(())
}

fn read_once(mut reader: PortReader) -> io::Result<()> {
    let own = Netns::current()?;
    reader.owners(own.as_fd(), &[1])?;
    reader.files(&[1])?;
    Ok(())
}
