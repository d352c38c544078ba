//! Loading and attaching the BPF programs.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use aya::Ebpf;
use aya::programs::{Iter, Program, ProgramError};
use sockleak_core::observed::BlindSpot;
use sockleak_ebpf::{maps, programs};

use super::btf::MissingMember;
use super::fields::{Problem, Resolved};
use super::globals::Globals;
use super::kfunc::{self, Kfuncs};
use super::large_maps::{LargeMaps, Room};
pub use super::load_error::LoadError;
use super::load_error::refused;
use super::loader;
use super::port_table::PortReader;
use super::processor::elsewhere;
use super::running::Kernel;
use super::tracepoint::Hook;

/// The committed object.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SOCKLEAK_BPF_OBJECT"));

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

/// The loaded object, and what BTF told about the kernel.
pub struct Loaded {
    /// Dropping it detaches every program.
    pub(crate) ebpf: Ebpf,
    /// Tells who has a port; `None` until [`Loaded::add_port_reader`], and where the kernel refuses it.
    pub ports: Option<PortReader>,
    /// What this kernel cannot tell.
    pub blind: Vec<BlindSpot>,
}

impl Loaded {
    /// Loads what tells who has a port. Nothing is missed while it is not there, so the tracer comes first. Where the
    /// kernel refuses it, `blind` says so.
    pub fn add_port_reader(&mut self, kernel: &Kernel) {
        match port_reader(kernel) {
            Ok(reader) => self.ports = Some(reader),
            Err(error) => self.blind.push(BlindSpot::PortReaderRefused {
                why: error.sentence(),
            }),
        }
    }
}

/// A load that has begun.
pub struct Preparation {
    settings: Settings,
    loader: loader::Preparation,
    large: LargeMaps,
}

/// Begins with what nothing of the kernel has to be known for.
#[must_use]
pub fn prepare(settings: Settings) -> Preparation {
    Preparation {
        settings,
        loader: loader::prepare(),
        large: LargeMaps::begin(Room {
            at_once: settings.open_descriptors.saturating_add(SPARE_RECORDS),
            sockets: settings.max_sockets,
        }),
    }
}

/// Loads and attaches every program of the tracer.
///
/// # Errors
/// When a required struct member is missing, or when the kernel refuses a program. Nothing stays behind.
pub fn load(kernel: &Kernel, prepared: Preparation) -> Result<Loaded, LoadError> {
    let settings = prepared.settings;
    let mut kfuncs = kernel.kfuncs;
    let mut loaded = load_with(kernel, prepared, kfuncs, true);
    // Programs that are interpreted call no function of the kernel, and nothing but a load tells. What a cast saves is
    // time.
    if kfuncs.casts.is_some() && refuses_state_hook(&loaded) {
        kfuncs.casts = None;
        loaded = load_with(kernel, prepare(settings), kfuncs, true);
    }
    // 5.10 refuses bpf_get_socket_cookie in tracing programs.
    if refuses_state_hook(&loaded) {
        let mut loaded = load_with(kernel, prepare(settings), kfuncs, false)?;
        loaded.blind.push(BlindSpot::NoCookies);
        return Ok(loaded);
    }
    loaded
}

/// Whether the kernel refused the program that follows states, or its copy, which another thread may have loaded first.
fn refuses_state_hook(loaded: &Result<Loaded, LoadError>) -> bool {
    const HOOK: &str = programs::INET_SOCK_SET_STATE;
    let is_state_hook = |name: &str| name == HOOK || programs::COPIES.contains(&(name, HOOK));
    matches!(loaded, Err(LoadError::Program { name, .. }) if is_state_hook(name))
}

fn load_with(
    kernel: &Kernel,
    prepared: Preparation,
    kfuncs: Kfuncs,
    cookies: bool,
) -> Result<Loaded, LoadError> {
    let Preparation {
        settings,
        loader,
        large,
    } = prepared;
    let mut globals = Globals::of(kernel)?;
    globals.casts = u8::from(kfuncs.casts.is_some());
    globals.socket_cookie = u8::from(cookies);
    globals.follow_children = u8::from(settings.follow_children);
    globals.max_sockets = settings.max_sockets;
    globals.log_level = u8::from(settings.log) * log::Level::Warn as u8;
    let object = kfunc::resolve(OBJECT, kfuncs);
    let mut loader = globals.set(loader);
    loader.map_max_entries(maps::EVENTS, settings.ring_size);
    large.keep_small(&mut loader);
    let copies = programs::COPIES.into_iter().filter(|_| kernel.preempted);
    let wanted: Vec<_> = programs::ALL
        .map(|name| (name, name))
        .into_iter()
        .chain(copies)
        .collect();
    let ids = LazyLock::new(|| kernel.tracepoint());
    let ebpf = thread::scope(|scope| {
        // Beside the object, for which one processor does. Without this thread they are made when they are asked for.
        let make = elsewhere(|| LazyLock::force(&ids));
        let _ = thread::Builder::new().spawn_scoped(scope, make);
        let mut ebpf = loader.load(&object)?;
        large.take_places(&ebpf, kernel.allocates_entries)?;
        load_programs(&mut ebpf, &wanted, || &ids)?;
        Ok::<_, LoadError>(ebpf)
    })
    .map_err(|error| error.on(kernel))?;
    let call = if kfuncs.casts.is_some() { "no" } else { "a" };
    log::debug!("the programs need {call} call to tell which process it is");
    Ok(Loaded {
        ebpf,
        ports: None,
        blind: blind(&kernel.fields),
    })
}

/// What a thread returned; its panic goes on here.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Loads and attaches these programs. A verifier checks one program, on one processor; the walk keeps it busy for about
/// as long as all the others together, so each walk has a thread of its own, which begins first and then helps with what
/// is left. It is attached last.
fn load_programs<'i>(
    ebpf: &mut Ebpf,
    wanted: &[(&'static str, &'static str)],
    ids: impl Fn() -> &'i aya::Btf + Copy + Send + Sync,
) -> Result<(), LoadError> {
    let mut found: HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    let hooks = wanted
        .iter()
        .map(|(name, tracepoint)| Hook::of(found.remove(*name), name, tracepoint))
        .collect::<Result<Vec<_>, _>>()?;
    let (walks, others): (Vec<_>, Vec<_>) = hooks
        .into_iter()
        .partition(|hook| hook.tracepoint() == programs::SCHED_PROCESS_EXIT);
    let others = Mutex::new(others.into_iter());
    let next = || others.lock().unwrap_or_else(PoisonError::into_inner).next();
    // A copy must come after the program that it is a copy of, which another thread may still be loading.
    let rest = || -> Result<Vec<Hook<'_>>, LoadError> {
        let mut copies = Vec::new();
        while let Some(mut hook) = next() {
            hook.load(ids)?;
            if hook.is_copy() {
                copies.push(hook);
            } else {
                hook.attach()?;
            }
        }
        Ok(copies)
    };
    thread::scope(|scope| {
        let walks = walks
            .into_iter()
            .map(|mut walk| {
                let load = || walk.load(ids).and_then(|()| rest()).map(|copies| (copies, walk));
                thread::Builder::new().spawn_scoped(scope, elsewhere(load))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(LoadError::Thread)?;
        let mut last = rest()?;
        let (copies, walks): (Vec<_>, Vec<_>) = walks
            .into_iter()
            .map(join)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .unzip();
        last.extend(copies.into_iter().flatten());
        last.extend(walks);
        last.iter_mut().try_for_each(Hook::attach)
    })
}

/// Loads the iterators and nothing else: what `sockleak` needs to tell who has a port, without a tracer.
///
/// # Errors
/// As [`load`], or when the kernel has no BTF.
pub fn load_port_reader() -> Result<PortReader, LoadError> {
    port_reader(&Kernel::read()?)
}

/// An object of its own, with the smallest maps: so the reader owns all that it needs.
pub(super) fn port_reader(kernel: &Kernel) -> Result<PortReader, LoadError> {
    let globals = Globals::of(kernel)?;
    let mut loader = globals.set(loader::prepare());
    for name in maps::OF_THE_TRACER {
        loader.map_max_entries(name, 1);
    }
    let object = kfunc::resolve(OBJECT, Kfuncs::default());
    let loaded = loader.load(&object);
    let mut ebpf = loaded.map_err(|error| LoadError::from(error).on(kernel))?;
    let ids = kernel.iterators();
    for (name, visited) in programs::ITERATORS {
        find(&mut ebpf, name)
            .and_then(|iterator: &mut Iter| iterator.load(visited, &ids))
            .map_err(|source| refused(name, source))?;
    }
    Ok(PortReader::new(ebpf))
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
    const REFERENCES: [&str; 2] = ["FILE_COUNT", "FILE_REF"];
    let missing = |global: &str| {
        resolved
            .iter()
            .any(|row| row.field.global == global && row.problem.is_some())
    };
    let no_references = REFERENCES.into_iter().all(missing);
    // MPTCP is no module: a kernel that has it has its structs here.
    let no_mptcp = |row: &Resolved| {
        let structure = row.field.structure;
        structure.starts_with("mptcp_")
            && matches!(&row.problem, Some(Problem::Missing(MissingMember::Struct { .. })))
    };
    resolved
        .iter()
        .filter(|row| row.is_missed() && !MAY_LACK.contains(&row.field.global))
        .filter(|row| !no_mptcp(row))
        .filter(|row| no_references || !REFERENCES.contains(&row.field.global))
        .filter_map(|row| row.problem.as_ref())
        .map(|problem| BlindSpot::FieldMissing {
            problem: problem.to_string(),
        })
        .collect()
}

/// The program of that name and kind.
pub(super) fn find<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<T, ProgramError>
where
    T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}
