//! A control group with little memory, in either version of the hierarchy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::limit::limit;

/// Enough for a victim, and soon used up.
const LIMIT: u64 = 32 << 20;
/// Controllers of the groups in a group of version 2.
const SUBTREE: &str = "cgroup.subtree_control";

/// There is one at a time, since making it may switch the controller on and removing it off again.
static ONLY: Mutex<()> = Mutex::new(());

/// A group whose processes may use 32 MiB together. It is removed with this value.
pub struct SmallMemory {
    folder: PathBuf,
    version: Version,
    /// Where the controller was switched on for this group.
    switched_on: Option<PathBuf>,
    _only: MutexGuard<'static, ()>,
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

impl SmallMemory {
    /// Makes a group in the root of the hierarchy that has the memory controller.
    ///
    /// # Errors
    /// When no mounted hierarchy has it, or groups may not be made.
    pub fn make() -> io::Result<Self> {
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let (root, version) = hierarchy().ok_or(io::ErrorKind::NotFound)?;
        let subtree = root.join(SUBTREE);
        let switched_on = match version {
            Version::Two if !has_memory(&subtree) => {
                fs::write(&subtree, "+memory")?;
                Some(subtree)
            }
            _ => None,
        };
        let group = Self {
            folder: root.join(format!("sockleak-test-{}", process::id())),
            version,
            switched_on,
            _only: only,
        };
        fs::create_dir(&group.folder)?;
        let (limit, with_swap, swap) = match version {
            Version::One => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", LIMIT),
            Version::Two => ("memory.max", "memory.swap.max", 0),
        };
        fs::write(group.folder.join(limit), LIMIT.to_string())?;
        // Missing where the kernel does not count swap.
        let _ = fs::write(group.folder.join(with_swap), swap.to_string());
        Ok(group)
    }

    /// Moves a process into the group.
    #[track_caller]
    pub fn take(&self, pid: u32) {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string()).expect("a living process");
    }

    /// How many processes the kernel killed because the group had no memory left.
    #[track_caller]
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).expect("the kernel has it");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("a count of kills").parse().expect("a number")
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        // A process leaves its group a little after its end was told. Failing here would hide why a test failed.
        let start = Instant::now();
        while fs::remove_dir(&self.folder).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
            && start.elapsed() < limit()
        {
            thread::sleep(Duration::from_millis(2));
        }
        if let Some(subtree) = &self.switched_on {
            // Somebody else may use it meanwhile, who then keeps it.
            let _ = fs::write(subtree, "-memory");
        }
    }
}

/// The root of the hierarchy that has the memory controller.
fn hierarchy() -> Option<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|mount| {
        let words: Vec<&str> = mount.split(' ').collect();
        let [_, folder, kind, options, ..] = words[..] else {
            return None;
        };
        let folder = Path::new(folder);
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                Some((folder.into(), Version::One))
            }
            "cgroup2" if has_memory(&folder.join("cgroup.controllers")) => {
                Some((folder.into(), Version::Two))
            }
            _ => None,
        }
    })
}

fn has_memory(controllers: &Path) -> bool {
    fs::read_to_string(controllers).is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
}
