//! The tracer once it is attached, in parts for those who use them.

use std::io;

use sockleak_ebpf::programs as names;

use super::clock;
use super::inventory::{Events, EventsError, Inventory, MapsError, ProgramLog};
use super::kernel_types::KernelTypes;
use super::load::{self, LoadError, Programs, Settings};

/// The tracepoints that its programs are attached to.
pub const HOOKS: &[&str] = &names::ALL;

/// An attached tracer.
pub struct Tracer {
    pub programs: Programs,
    pub inventory: Inventory,
    pub events: Events,
    /// `None` where it cannot be read.
    pub log: Option<ProgramLog>,
}

/// It cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum TracerError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Maps(#[from] MapsError),
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error("cannot read the kernel's tick rate: {0}")]
    Tick(#[source] io::Error),
}

impl Tracer {
    /// Loads and attaches every program.
    ///
    /// # Errors
    /// When a required struct member is missing, or when the kernel refuses a program. Nothing stays behind.
    pub fn attach(kernel: &KernelTypes, settings: &Settings) -> Result<Self, TracerError> {
        let mut programs = load::load(kernel, settings)?;
        let hz = clock::hz().map_err(TracerError::Tick)?;
        Ok(Self {
            log: ProgramLog::open(&mut programs.ebpf),
            events: Events::open(&mut programs.ebpf)?,
            inventory: Inventory::open(&mut programs.ebpf, kernel, hz)?,
            programs,
        })
    }
}
