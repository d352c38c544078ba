//! The programs that sockleak's are measured against: as little as can be done, and as much as one would do first.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap};
use clap::ValueEnum;
use sockleak_ebpf::{globals, programs};
use sockleak_kernel::running::Kernel;
use sockleak_kernel::tracepoint::Hook;
use sockleak_kernel::{kfunc, loader};

use super::obey;

/// `cargo xtask bpf` builds it from `sockleak-ebpf/baselines`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/baselines.bpf.o");
/// The program of it that does nothing.
const EMPTY: &str = "empty";

/// What a baseline does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Baseline {
    /// Nothing for each change of state.
    Empty,
    /// One failed lookup for each change of state.
    Bare,
    /// A walk at exit that reads the same fields and stores nothing.
    Reading,
    /// A walk at exit that stores an element and sends a record for each socket.
    Naive,
}

impl Baseline {
    /// As the command line and the tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Bare => "bare",
            Self::Reading => "reading",
            Self::Naive => "naive",
        }
    }
}

/// Attaches, says so, and stays until stdin ends. To everything it is told it answers how many sockets were found.
///
/// # Errors
/// When the kernel refuses the programs.
pub fn run(which: Baseline, pids: &[u32]) -> Result<()> {
    let kernel = Kernel::read()?;
    let group_dead = u8::from(kernel.group_dead);
    let naive = u8::from(which == Baseline::Naive);
    let mut loader = loader::make();
    loader.override_global(globals::HAS_GROUP_DEAD, &group_dead, false);
    loader.override_global(globals::MAX_SOCKETS, &u32::MAX, true);
    loader.override_global("STORES", &naive, true);
    for field in kernel.traceable_fields()? {
        loader.override_global(field.field.global, &field.value, false);
    }
    let mut ebpf = loader.load(&kfunc::resolve(OBJECT, kernel.kfuncs))?;
    if matches!(which, Baseline::Reading | Baseline::Naive) {
        let map = ebpf.map_mut("WATCHED").context("the object has no map WATCHED")?;
        let mut watched: HashMap<_, u32, u8> = HashMap::try_from(map)?;
        for pid in pids {
            watched.insert(pid, 1, 0)?;
        }
    }
    let (name, tracepoint) = match which {
        Baseline::Empty => (EMPTY, programs::INET_SOCK_SET_STATE),
        Baseline::Bare => (programs::INET_SOCK_SET_STATE, programs::INET_SOCK_SET_STATE),
        Baseline::Reading | Baseline::Naive => (programs::SCHED_PROCESS_EXIT, programs::SCHED_PROCESS_EXIT),
    };
    let mut hook = Hook::of(ebpf.program_mut(name), name, tracepoint)?;
    let ids = kernel.tracepoint();
    hook.load(&ids)?;
    hook.attach()?;
    println!("attached");
    std::io::stdout().flush()?;
    let found = ebpf.take_map("FOUND").context("the object has no map FOUND")?;
    let found: Array<_, u32> = Array::try_from(found)?;
    obey(|_| Ok(found.get(&0, 0)?.to_string()))
}
