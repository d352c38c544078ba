//! The kernel's accounting of a tool's BPF programs and maps, found by the descriptors of its process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Sub;

use anyhow::{Context as _, Result};

use crate::fdinfo::{self, Map, Program};

/// What the programs of a process have done since they were loaded.
#[derive(Clone, Debug, Default)]
pub struct Account {
    programs: Vec<Program>,
    /// Program id and tracepoint, for each link.
    links: Vec<(u64, String)>,
}

/// What the programs of one tracepoint have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub run_time_ns: u64,
    /// How often the tracepoint ran a program: copies of a program at one tracepoint count as one.
    pub runs: u64,
    pub misses: u64,
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            run_time_ns: self.run_time_ns - before.run_time_ns,
            runs: self.runs - before.runs,
            misses: self.misses - before.misses,
        }
    }
}

impl Work {
    /// Nanoseconds a run.
    pub fn per_run(self) -> f64 {
        self.run_time_ns as f64 / self.runs.max(1) as f64
    }
}

impl Account {
    /// Of a process that runs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn of(pid: u32) -> Result<Self> {
        let mut account = Self::default();
        for text in bpf_descriptors(pid).with_context(|| format!("process {pid} has ended"))? {
            if let Some((program, tracepoint)) = fdinfo::link(&text) {
                account.links.push((program, tracepoint.to_owned()));
            } else if let Some(program) = Program::parse(&text) {
                account.programs.push(program);
            }
        }
        account.programs.sort_unstable_by_key(|program| program.id);
        account.programs.dedup_by_key(|program| program.id);
        Ok(account)
    }

    /// The work of a tracepoint's programs. A tool without links (bpftrace 0.17 attaches by ioctl) has one program.
    pub fn at(&self, tracepoint: &str) -> Work {
        let attached = |program: &&Program| {
            let mut links = self.links.iter();
            self.links.is_empty() || links.any(|(id, at)| *id == program.id && at == tracepoint)
        };
        let mut work = Work::default();
        for program in self.programs.iter().filter(attached) {
            work.run_time_ns += program.run_time_ns;
            work.runs = work.runs.max(program.runs);
            work.misses += program.misses;
        }
        work
    }
}

/// Bytes that the maps of a process take in the kernel.
///
/// # Errors
/// When the process has ended.
pub fn map_memory(pid: u32) -> io::Result<u64> {
    let texts = bpf_descriptors(pid)?;
    let maps = texts.iter().filter_map(|text| Map::parse(text));
    // A map has a descriptor for each program that uses it.
    let of_each: BTreeMap<u64, u64> = maps.map(|map| (map.id, map.memory)).collect();
    Ok(of_each.values().sum())
}

/// The fdinfo of every descriptor of BPF.
fn bpf_descriptors(pid: u32) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // It may be closed by now, by a process that is still starting.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        if target.to_string_lossy().starts_with("anon_inode:bpf") {
            let path = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
            found.extend(fs::read_to_string(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(id: u64, runs: u64) -> Program {
        Program {
            id,
            run_time_ns: runs * 100,
            runs,
            misses: 1,
        }
    }

    #[test]
    fn copies_share_their_runs_and_add_up_their_time() {
        let links = [(1, "a"), (2, "a"), (3, "b")];
        let account = Account {
            programs: vec![program(1, 10), program(2, 9), program(3, 5)],
            links: links.map(|(id, at)| (id, at.to_owned())).into(),
        };
        let work = Work {
            run_time_ns: 1900,
            runs: 10,
            misses: 2,
        };
        assert_eq!(account.at("a"), work);
        assert_eq!(account.at("c"), Work::default());
        assert_eq!(work.per_run(), 190.0);
    }

    #[test]
    fn without_links_the_only_program_is_meant() {
        let account = Account {
            programs: vec![program(1, 10)],
            links: Vec::new(),
        };
        assert_eq!(account.at("a").runs, 10);
    }
}
