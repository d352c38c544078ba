//! Programs of this machine that the tests start, with everything that they load, to be taken into a guest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

const PROGRAMS: [&str; 4] = ["sh", "sleep", "ss", "true"];

/// Imports what the tests' Python scripts do, and what Python itself imports to print a traceback, and prints
/// the interpreter and the files of all modules.
const MODULES: &str = "\
import argparse, http.server, io, linecache, os, signal, socket, sys, tokenize, traceback, encodings.idna
print(sys.executable)
for module in list(sys.modules.values()):
    if getattr(module, '__file__', None): print(module.__file__)";

/// Files at the paths that they have here, and names that lead to some of them.
pub struct Tools {
    pub files: BTreeSet<PathBuf>,
    /// Path in the guest and what it leads to.
    pub links: Vec<(PathBuf, PathBuf)>,
}

impl Tools {
    /// Python and ss, which are installed where they are missing, and the others.
    ///
    /// # Errors
    /// When they cannot be installed, or do not tell what they load.
    pub fn find() -> Result<Self> {
        setup::test_tools()?;
        let python = shell::output(Command::new("python3").args(["-c", MODULES]))?;
        let interpreter = PathBuf::from(python.lines().next().context("Python told nothing of itself")?);
        let mut files: BTreeSet<_> = python.lines().map(PathBuf::from).collect();
        let mut links = vec![(in_path("python3"), interpreter)];
        for program in PROGRAMS {
            let path = shell::find(program).with_context(|| format!("there is no {program} here"))?;
            files.insert(path.clone());
            // What is in the guest's PATH already is no link to itself.
            if path != in_path(program) {
                links.push((in_path(program), path));
            }
        }
        let objects: Vec<_> = files
            .iter()
            .filter(|path| path.extension().is_none_or(|suffix| suffix != "py"))
            .cloned()
            .collect();
        for object in objects {
            // It fails for what is linked statically, which needs nothing.
            let libraries = shell::output(Command::new("ldd").arg(object)).unwrap_or_default();
            files.extend(libraries_in(&libraries));
        }
        Ok(Self { files, links })
    }
}

/// Where the guest looks for programs.
fn in_path(program: &str) -> PathBuf {
    Path::new("/usr/bin").join(program)
}

/// The paths in what `ldd` prints.
fn libraries_in(text: &str) -> impl Iterator<Item = PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/libm.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        let found: Vec<_> = libraries_in(text).collect();
        assert_eq!(
            found,
            ["/lib/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }
}
