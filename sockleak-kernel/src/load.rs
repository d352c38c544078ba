//! Loading and attaching the BPF programs.

use std::collections::HashMap;

use aya::Ebpf;
use aya::programs::Program;
use sockleak_core::observed::BlindSpot;
use sockleak_ebpf::{maps, programs};

use super::btf::MissingMember;
use super::fields::{Problem, Resolved};
use super::globals::Globals;
use super::kernel_types::KernelTypes;
use super::kfunc::{self, Kfuncs};
pub use super::load_error::LoadError;
use super::map_sizes::{self, Room};
use super::object::OBJECT;
use super::port_table::PortReader;
use super::tracepoint::{self, Hook};

/// Records that there is memory for at once, beside those of the descriptors that are open already: a megabyte, which takes
/// a quarter of a millisecond to make.
const SPARE_RECORDS: u32 = 4096;

/// What the programs are loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Children of watched processes are watched too.
    pub follow_children: bool,
    /// The inventory of one process ends after this many sockets; and so many of all processes have room, besides those
    /// that there is memory for at once.
    pub max_sockets: u32,
    /// Descriptors that are open in what will be watched, as far as is known.
    pub open_descriptors: u32,
    /// Bytes of the event ring: a power of two, at least a page.
    pub ring_size: u32,
    /// The programs' warnings are wanted.
    pub log: bool,
}

impl Settings {
    fn room(&self) -> Room {
        Room {
            at_once: self.open_descriptors.saturating_add(SPARE_RECORDS),
            sockets: self.max_sockets,
        }
    }
}

/// The attached programs, and what BTF told about the kernel.
pub struct Programs {
    /// Dropping it detaches every program.
    pub(crate) ebpf: Ebpf,
    ports: Option<PortReader>,
    blind: Vec<BlindSpot>,
}

impl Programs {
    /// Loads what tells who has a port. Nothing is missed while it is not there, so the tracer comes first. Where the
    /// kernel refuses it, [`Programs::blind_spots`] says so.
    pub fn add_port_reader(&mut self, kernel: &KernelTypes) {
        match PortReader::load(kernel) {
            Ok(reader) => self.ports = Some(reader),
            Err(error) => self.blind.push(BlindSpot::PortReaderRefused {
                why: error.sentence(),
            }),
        }
    }

    /// Tells who has a port; `None` before [`Programs::add_port_reader`], and where the kernel refuses it.
    pub const fn port_reader(&mut self) -> Option<&mut PortReader> {
        self.ports.as_mut()
    }

    /// What this kernel cannot tell.
    #[must_use]
    pub fn blind_spots(&self) -> &[BlindSpot] {
        &self.blind
    }

    /// How often, at most, the kernel skipped a program because it interrupted itself on the same CPU.
    #[must_use]
    pub fn recursion_misses(&self) -> u64 {
        tracepoint::recursion_misses(&self.ebpf)
    }
}

/// Loads and attaches every program of the tracer.
///
/// # Errors
/// When a required struct member is missing, or when the kernel refuses a program. Nothing stays behind.
pub fn load(kernel: &KernelTypes, settings: &Settings) -> Result<Programs, LoadError> {
    let mut kfuncs = kernel.kfuncs;
    let mut loaded = load_with(kernel, settings, kfuncs, true);
    // Programs that are interpreted call no function of the kernel, and nothing but a load tells. What a cast saves is
    // time.
    if kfuncs.casts.is_some() && refuses_state_hook(&loaded) {
        kfuncs.casts = None;
        loaded = load_with(kernel, settings, kfuncs, true);
    }
    // 5.10 refuses bpf_get_socket_cookie in tracing programs.
    if refuses_state_hook(&loaded) {
        let mut loaded = load_with(kernel, settings, kfuncs, false)?;
        loaded.blind.push(BlindSpot::NoCookies);
        return Ok(loaded);
    }
    loaded
}

/// Whether the kernel refused the program that follows states, which is loaded first.
fn refuses_state_hook(loaded: &Result<Programs, LoadError>) -> bool {
    matches!(loaded, Err(LoadError::Program { name, .. }) if *name == programs::INET_SOCK_SET_STATE)
}

fn load_with(
    kernel: &KernelTypes,
    settings: &Settings,
    kfuncs: Kfuncs,
    cookies: bool,
) -> Result<Programs, LoadError> {
    let mut globals = Globals::of(kernel)?;
    globals.casts = u8::from(kfuncs.casts.is_some());
    globals.socket_cookie = u8::from(cookies);
    globals.follow_children = u8::from(settings.follow_children);
    globals.max_sockets = settings.max_sockets;
    globals.log_level = u8::from(settings.log) * log::Level::Warn as u8;
    let mut object = kfunc::resolve(OBJECT, kfuncs);
    if !kernel.allocates_entries {
        map_sizes::preallocate(&mut object).map_err(|error| LoadError::of_object(error.into()))?;
    }
    let mut loader = globals.loader();
    loader.map_max_entries(maps::EVENTS, settings.ring_size);
    settings.room().set(&mut loader, kernel.allocates_entries);
    let loaded = loader.load(&object).map_err(LoadError::of_object);
    let ebpf = loaded
        .and_then(|mut ebpf| attach(&mut ebpf, kernel).map(|()| ebpf))
        .map_err(|error| error.on(kernel))?;
    let call = if kfuncs.casts.is_some() { "no" } else { "a" };
    log::debug!("the programs need {call} call to tell which process it is");
    Ok(Programs {
        ebpf,
        ports: None,
        blind: blind(&kernel.fields),
    })
}

/// Loads and attaches the programs, each copy after the program that it is a copy of, and the walks at last, so that
/// whatever they record is followed.
fn attach(ebpf: &mut Ebpf, kernel: &KernelTypes) -> Result<(), LoadError> {
    let copies = programs::COPIES.into_iter().filter(|_| kernel.preempted);
    let wanted = programs::ALL.map(|name| (name, name)).into_iter().chain(copies);
    let (walks, others): (Vec<_>, Vec<_>) =
        wanted.partition(|(_, tracepoint)| *tracepoint == programs::SCHED_PROCESS_EXIT);
    let mut found: HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    let ids = kernel.tracepoint();
    for (name, tracepoint) in others.into_iter().chain(walks) {
        let mut hook = Hook::of(found.remove(name), name, tracepoint)?;
        hook.load(&ids)?;
        hook.attach()?;
    }
    Ok(())
}

/// What is not known because the kernel lacks an optional member. Of `f_count` and `f_ref` each kernel has one,
/// a kernel without IPv6 or io_uring needs none of theirs, and what tells the current task has a helper for it.
fn blind(resolved: &[Resolved]) -> Vec<BlindSpot> {
    const MAY_LACK: [&str; 5] = [
        "TASK_IO_URING",
        "SK_V6_DADDR",
        "SK_V6_RCV_SADDR",
        "TB_FAST_V6_RCV_SADDR",
        "TB_FAST_IPV6_ONLY",
    ];
    // MPTCP is no module: a kernel that has it has its structs here.
    let no_mptcp = |row: &Resolved| {
        let structure = row.field.structure;
        structure.starts_with("mptcp_")
            && matches!(&row.problem, Some(Problem::Missing(MissingMember::Struct { .. })))
    };
    resolved
        .iter()
        .filter(|row| row.is_missed(resolved) && !MAY_LACK.contains(&row.field.global))
        .filter(|row| !no_mptcp(row))
        .filter_map(|row| row.problem.as_ref())
        .map(|problem| BlindSpot::FieldMissing {
            problem: problem.to_string(),
        })
        .collect()
}
