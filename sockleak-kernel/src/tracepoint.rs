//! Programs at tracepoints.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Ebpf;
use aya::programs::{Program, ProgramError};
use sockleak_ebpf::programs;

use super::load_error::{LoadError, refused};

/// A program of an object, and the tracepoint that it is for.
pub(super) struct Hook<'a> {
    program: &'a mut Program,
    name: &'static str,
    tracepoint: &'static str,
}

impl<'a> Hook<'a> {
    /// The program of this name.
    ///
    /// # Errors
    /// When the object has none.
    pub(super) fn of(
        program: Option<&'a mut Program>,
        name: &'static str,
        tracepoint: &'static str,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            program: program.ok_or_else(|| refused(name, ProgramError::NotLoaded))?,
            name,
            tracepoint,
        })
    }

    /// Loads it. A program with typed arguments finds the id of its tracepoint there.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn load(&mut self, ids: &aya::Btf) -> Result<(), LoadError> {
        let loaded = match &mut *self.program {
            Program::RawTracePoint(program) => program.load(),
            Program::BtfTracePoint(program) => program.load(self.tracepoint, ids),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.map_err(|source| refused(self.name, source))
    }

    /// Attaches it once it is loaded, until its object is dropped.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn attach(&mut self) -> Result<(), LoadError> {
        let attached = match &mut *self.program {
            Program::RawTracePoint(program) => program.attach(self.tracepoint).map(drop),
            Program::BtfTracePoint(program) => program.attach().map(drop),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        attached.map_err(|source| refused(self.name, source))
    }
}

/// How often, at most, the kernel skipped a program because it interrupted itself on the same CPU
/// (`bpf_prog.stats.misses`, 5.12 and later; 0 before). Where a program has copies, an event is lost only when
/// every one of them was skipped.
#[must_use]
pub fn recursion_misses(ebpf: &Ebpf) -> u64 {
    let of = |tracepoint: &str| {
        let copies = programs::COPIES.iter().filter(|(_, of)| *of == tracepoint);
        let names = copies.map(|(name, _)| *name).chain([tracepoint]);
        names
            .filter_map(|name| misses_of(ebpf.program(name)?))
            .min()
            .unwrap_or(0)
    };
    programs::ALL.into_iter().map(of).sum()
}

fn misses_of(program: &Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    line.trim().parse().ok()
}
