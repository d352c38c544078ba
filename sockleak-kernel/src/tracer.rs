//! The tracer once it is attached, in parts for those who use them.

use std::io;

use sockleak_core::observed::BlindSpot;
use sockleak_ebpf::programs;

use super::clock;
use super::inventory::{Events, EventsError, Inventory, MapsError, ProgramLog};
use super::kernel_types::KernelTypes;
use super::load::{self, LoadError, Loaded, Settings};
use super::port_table::PortReader;
use super::tracepoint;

/// The tracepoints that its programs are attached to.
pub const HOOKS: &[&str] = &programs::ALL;

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
        let mut loaded = load::load(kernel, settings)?;
        let hz = clock::hz().map_err(TracerError::Tick)?;
        Ok(Self {
            log: ProgramLog::open(&mut loaded.ebpf),
            events: Events::open(&mut loaded.ebpf)?,
            inventory: Inventory::open(&mut loaded.ebpf, kernel, hz)?,
            programs: Programs(loaded),
        })
    }
}

/// The attached programs. Dropping them detaches every one.
pub struct Programs(Loaded);

impl Programs {
    /// Loads what tells who has a port. Nothing is missed while it is not there, so the tracer comes first.
    pub fn add_port_reader(&mut self, kernel: &KernelTypes) {
        self.0.add_port_reader(kernel);
    }

    /// Tells who has a port; `None` before [`Programs::add_port_reader`], and where the kernel refuses it.
    pub const fn port_reader(&mut self) -> Option<&mut PortReader> {
        self.0.ports.as_mut()
    }

    /// What this kernel cannot tell.
    #[must_use]
    pub fn blind_spots(&self) -> &[BlindSpot] {
        &self.0.blind
    }

    /// How often, at most, the kernel skipped a program because it interrupted itself on the same CPU.
    #[must_use]
    pub fn recursion_misses(&self) -> u64 {
        tracepoint::recursion_misses(&self.0.ebpf)
    }
}
