//! The tools that are measured: how each is started, when it is attached, and what it says that it lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt};

use anyhow::Result;

use crate::children::Process;
use crate::output::Written;

/// What bpftrace is given: the fields that tcpstates prints.
const ONE_LINER: &str = "tracepoint:sock:inet_sock_set_state \
    { printf(\"%x %d %s %s %d %s %d %d %d\\n\", args->skaddr, pid, comm, \
    ntop(args->family, args->saddr), args->sport, ntop(args->family, args->daddr), args->dport, \
    args->oldstate, args->newstate) }";
/// The tracepoint at which everybody's programs are, and that of the walk.
pub const STATE: &str = "inet_sock_set_state";
pub const EXIT: &str = "sched_process_exit";
/// Where bpftrace and tcpstates find tracepoints.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// Who looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// sockleak with JSON output.
    Sockleak,
    /// sockleak with text for people.
    SockleakText,
    Tcpstates,
    Bpftrace,
    /// The bare program.
    Bare,
}

impl Tool {
    /// As the tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sockleak => "sockleak",
            Self::SockleakText => "sockleak, text",
            Self::Tcpstates => "tcpstates",
            Self::Bpftrace => "bpftrace",
            Self::Bare => "bare",
        }
    }

    /// It prints a line for each change of state.
    pub fn prints_changes(self) -> bool {
        matches!(self, Self::Tcpstates | Self::Bpftrace)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The peers of this machine.
pub struct Installed {
    tcpstates: Option<PathBuf>,
    bpftrace: Option<PathBuf>,
    tracefs: bool,
}

impl Installed {
    pub fn find() -> Self {
        Self {
            tcpstates: find("tcpstates"),
            bpftrace: find("bpftrace"),
            tracefs: TRACEFS.iter().any(|events| Path::new(events).is_dir()),
        }
    }

    /// Whether a tool can be measured here.
    pub fn has(&self, tool: Tool) -> bool {
        match tool {
            Tool::Tcpstates => self.tracefs && self.tcpstates.is_some(),
            Tool::Bpftrace => self.tracefs && self.bpftrace.is_some(),
            _ => true,
        }
    }

    /// What to do to have every peer.
    pub fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        for (name, found, package) in [
            ("bpftrace", &self.bpftrace, "bpftrace"),
            ("tcpstates", &self.tcpstates, "libbpf-tools"),
        ] {
            if found.is_none() {
                hints.push(format!(
                    "{name} is not here and is left out: apt install {package}"
                ));
            }
        }
        if !self.tracefs && hints.len() < 2 {
            hints.push(
                "tracefs is not mounted, which the peers need, so they are left out: \
                 mount -t tracefs tracefs /sys/kernel/tracing"
                    .to_owned(),
            );
        }
        hints
    }

    /// Starts a tool that looks at these processes, or at all where it knows no other way.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, tool: Tool, sockleak: &Path, pids: &[u32]) -> Result<Process> {
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let mut command = match tool {
            Tool::Bare => return Process::in_role(&["bare"]),
            Tool::Sockleak | Tool::SockleakText => Command::new(sockleak),
            Tool::Tcpstates => Command::new(self.tcpstates.as_deref().unwrap_or(Path::new("tcpstates"))),
            Tool::Bpftrace => Command::new(self.bpftrace.as_deref().unwrap_or(Path::new("bpftrace"))),
        };
        match tool {
            Tool::Sockleak => command.args(["--output", "json", "--pid", &pids.join(",")]),
            Tool::SockleakText => command.args(["--pid", &pids.join(",")]),
            Tool::Bpftrace => command.args(["-e", ONE_LINER]),
            _ => &mut command,
        };
        Process::start(&mut command)
    }
}

/// The first program of that name in PATH, where administrators' programs are looked for too.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let mut candidates = folders.map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}

/// Changes of state that a peer says it lost: `lost 12 events on CPU #1`, `Lost 12 events`.
pub fn told_lost(written: &Written) -> u64 {
    let text = written.text();
    text.lines().filter_map(lost).sum()
}

fn lost(line: &str) -> Option<u64> {
    let rest = line
        .strip_prefix("lost ")
        .or_else(|| line.strip_prefix("Lost "))?;
    let (number, rest) = rest.split_once(' ')?;
    rest.starts_with("events").then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_tell_what_they_lost() {
        assert_eq!(lost("lost 12 events on CPU #1"), Some(12));
        assert_eq!(lost("Lost 345 events"), Some(345));
        assert_eq!(lost("lost+found 3 events"), None);
        assert_eq!(lost("Lost count"), None);
    }

    #[test]
    fn missing_peers_are_named_with_their_packages() {
        let mut installed = Installed {
            tcpstates: None,
            bpftrace: Some("/usr/bin/bpftrace".into()),
            tracefs: true,
        };
        assert!(!installed.has(Tool::Tcpstates) && installed.has(Tool::Bpftrace));
        assert_eq!(
            installed.hints(),
            ["tcpstates is not here and is left out: apt install libbpf-tools"]
        );
        installed.tracefs = false;
        assert!(!installed.has(Tool::Bpftrace) && installed.has(Tool::Sockleak));
        assert!(installed.hints()[1].contains("mount -t tracefs"));
    }
}
