//! The kernel's accounting of a tool's BPF programs and maps, found by the descriptors of its process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Sub;

use anyhow::{Context as _, Result};
use aya::maps::loaded_maps;
use aya::programs::loaded_programs;
use sockleak_kernel::btf::Btf;

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

    /// Program id and tracepoint of each link.
    pub fn links(&self) -> &[(u64, String)] {
        &self.links
    }

    /// A program is attached to that tracepoint by a link.
    pub fn has_link(&self, tracepoint: &str) -> bool {
        self.links.iter().any(|(_, at)| at == tracepoint)
    }
}

/// The id of the newest program that is there, of whomever. Ids grow (`idr_alloc_cyclic`, kernel/bpf/syscall.c).
pub fn newest_program() -> u32 {
    program_ids().max().unwrap_or(0)
}

/// How many programs were loaded since that one and are still there.
pub fn programs_since(newest: u32) -> usize {
    program_ids().filter(|id| *id > newest).count()
}

/// One may go while the list is read.
fn program_ids() -> impl Iterator<Item = u32> {
    loaded_programs().flatten().map(|program| program.id())
}

/// The maps of a process with their names, of which several may have the same.
///
/// # Errors
/// When the process has ended, or the kernel does not list its maps.
pub fn maps(pid: u32) -> Result<Vec<(String, Map)>> {
    // A map may go while the list is read.
    let known = loaded_maps().flatten();
    let named = known.map(|map| {
        (
            u64::from(map.id()),
            map.name_as_str().unwrap_or_default().to_owned(),
        )
    });
    let mut names: BTreeMap<_, _> = named.collect();
    let mut maps = Vec::new();
    for map in bpf_descriptors(pid)?.iter().filter_map(|text| Map::parse(text)) {
        // It has a descriptor for each program that uses it. An entry that is taken out is not there again.
        maps.extend(names.remove(&map.id).map(|name| (name, map)));
    }
    Ok(maps)
}

/// Bytes that a hash map adds to the key and the value of an element, if BTF tells.
///
/// # Errors
/// When there is no BTF.
pub fn element_header() -> Result<Option<u64>> {
    Ok(Btf::running()?.size_of_struct("htab_elem").map(u64::from))
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
        assert!(account.has_link("b") && !account.has_link("c"));
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
