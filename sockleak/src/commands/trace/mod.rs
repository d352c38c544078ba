//! `sockleak [trace]`: attach, follow, report.

mod aftermath;
mod command;
mod countdown;
mod deaths;
mod executing;
mod follow;
mod following;
mod interrupts;
mod lending;
mod looks;
mod namespaces;
mod owned;
mod pace;
mod processes;
mod reports;
mod rivals;
mod session;
mod survey;
mod targets;

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use jiff::Timestamp;
use sockleak_ebpf::programs;
use sockleak_kernel::clock::{self, BootClock};
use sockleak_kernel::load::{self, Preparation, Settings};
use sockleak_kernel::preflight::{self, Facts};
use sockleak_kernel::running::Kernel;
use sockleak_kernel::spawn::{self, Identity, StoppedChild};
use sockleak_kernel::tables::{self, Tables};
use sockleak_kernel::translate::Translator;
use sockleak_kernel::{descriptors, proc};
use tokio::sync::mpsc::unbounded_channel;

use self::command::Command;
use self::follow::{End, Sources, Timers};
use self::interrupts::Interrupts;
use self::session::Session;
use self::targets::Target;
use super::cli::{Common, TraceArgs};
use super::{is_broken_pipe, refuse_unmet};
use crate::output::{GoesOn, Notice, Output, Watch};

/// Runs the verb; the exit status.
///
/// # Errors
/// When the environment is refused, a target cannot be followed, or stdout cannot be written.
pub fn run(common: &Common, args: &TraceArgs) -> Result<u8> {
    let mut output = common.open_output(args.summary);
    let Some((program, arguments)) = args.command.split_first() else {
        return start(common, args, Begin::Nothing, output.as_mut());
    };
    let identity = common
        .user
        .map(|(uid, gid)| Identity::of(uid, gid))
        .transpose()
        .context("cannot find the groups of the calling user")?;
    let child = spawn::start(program, arguments, identity.as_ref())?;
    let pid = child.pid();
    let args = &TraceArgs {
        pids: vec![pid],
        ..args.clone()
    };
    start(common, args, Begin::Release(child), output.as_mut())
}

/// What happens once everything is attached.
pub enum Begin<'a> {
    Nothing,
    /// COMMAND is let go.
    Release(StoppedChild),
    Call(&'a mut dyn FnMut() -> io::Result<()>),
}

impl Begin<'_> {
    /// What a target is called. COMMAND has the name of sockleak until it is let go.
    fn name_of(&self, target: &Target) -> String {
        match self {
            Begin::Release(child) => child.program().to_owned(),
            Begin::Nothing | Begin::Call(_) => target.process.comm.clone(),
        }
    }
}

/// Of processes that there are, and of their descendants if these are wanted. That others are missing is said later.
fn open_descriptors(pids: &[u32], descendants: bool) -> u32 {
    let mut waiting = pids.to_vec();
    let mut open = 0_u32;
    while let Some(pid) = waiting.pop() {
        open = open.saturating_add(proc::open_descriptors(pid).unwrap_or(0));
        if descendants {
            waiting.extend(proc::children(pid));
        }
    }
    open
}

/// Attaches to the targets and follows them until the end; the exit status.
///
/// # Errors
/// When the environment is refused, a target cannot be followed, or stdout cannot be written.
pub fn start(common: &Common, args: &TraceArgs, begin: Begin<'_>, output: &mut dyn Output) -> Result<u8> {
    // COMMAND was forked before, with the limit of the caller.
    descriptors::raise_limit(args.pids.len())?;
    let prepared = load::prepare(Settings {
        follow_children: !args.no_follow,
        max_sockets: args.max_sockets(),
        open_descriptors: open_descriptors(&args.pids, !args.no_follow),
        ring_size: args.ring_size(),
        log: common.verbose > 0,
    });
    let facts = Facts::gather();
    refuse_unmet(&facts.requirements())?;
    let kernel = facts.btf?;
    let pids: BTreeSet<u32> = args.pids.iter().copied().collect();
    let targets = pids
        .into_iter()
        .map(|pid| Target::find(pid, true))
        .collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(trace(common, args, (&kernel, prepared), targets, begin, output))
}

async fn trace(
    common: &Common,
    args: &TraceArgs,
    (kernel, prepared): (&Kernel, Preparation),
    targets: Vec<Target>,
    begin: Begin<'_>,
    output: &mut dyn Output,
) -> Result<u8> {
    let mut interrupts = Interrupts::new()?;
    let mut loaded = load::load(kernel, prepared)?;
    let logger = if common.verbose > 0 {
        EbpfLogger::init(&mut loaded.ebpf).ok()
    } else {
        None
    };
    let ring = tables::take_ring(&mut loaded.ebpf)?;
    let tables = Tables::take(&mut loaded.ebpf)?;
    let hz = clock::hz().context("cannot read the kernel's tick rate")?;
    let translator = Translator::new(BootClock::sample(), hz, &kernel.reset_reasons);
    let (deaths, dead) = unbounded_channel();
    let mut session = Session::new(args, loaded, tables, translator, deaths, output);
    let watched = targets
        .iter()
        .map(|target| (target.process.pid, begin.name_of(target)))
        .collect();
    session.follow(targets)?;
    session.processes.remember_tables();
    let sockets = session.count_sockets()?;
    let mut sources = Sources::new(ring, dead, logger)?;
    let watch = Watch {
        time: Timestamp::now(),
        targets: watched,
        sockets,
        kernel: preflight::release(),
        hooks: programs::ALL.map(str::to_owned).to_vec(),
    };
    let watching = session.output.watch(&watch).map_err(anyhow::Error::from);
    let watching = match watching {
        Err(error) if !is_broken_pipe(&error) => return Err(error),
        watching => watching,
    };
    let mut command = match begin {
        Begin::Nothing => None,
        Begin::Release(child) => {
            let command = Command::release(child)?;
            let words = Notice::Command(command.name(), GoesOn::Abandoned).line();
            interrupts.leave_words(command.name().0, words);
            Some(command)
        }
        Begin::Call(call) => {
            call()?;
            None
        }
    };
    // Only reports need it.
    session.loaded.add_port_reader(kernel);
    let mut timers = Timers::new(args.duration);
    let sources = (&mut sources, &mut timers);
    let followed = match watching {
        Ok(()) => follow::follow(&mut session, sources, &mut interrupts, command.as_mut()).await,
        Err(unread) => Err(unread),
    };
    conclude(&mut session, followed, &mut interrupts, command).await
}

/// What comes after following: the countdown of `--wait`, and COMMAND, which is never left alone without a word.
async fn conclude(
    session: &mut Session<'_>,
    followed: Result<End>,
    interrupts: &mut Interrupts,
    command: Option<Command>,
) -> Result<u8> {
    let (end, failed) = match followed {
        Ok(end) => (Some(end), finish(session, end, interrupts).await.err()),
        Err(error) => (None, Some(error)),
    };
    let why = match (&failed, end) {
        (Some(error), _) if is_broken_pipe(error) => GoesOn::Unread,
        (Some(_), _) => GoesOn::Untraced,
        (None, Some(End::Abandoned)) => GoesOn::Abandoned,
        (None, _) => GoesOn::TimeIsUp,
    };
    let failed = failed.filter(|_| why == GoesOn::Untraced);
    let Some(mut command) = command else {
        if let Some(error) = failed {
            return Err(error);
        }
        return Ok(match why {
            GoesOn::Unread => {
                session.tell(&Notice::Unread);
                0
            }
            GoesOn::Abandoned => interrupts.exit_code(),
            _ => u8::from(session.args.exit_code && session.left_behind),
        });
    };
    if let Some(error) = failed {
        session.tell(&Notice::Failed(format!("{error:#}")));
    }
    if let Some(status) = command.status()? {
        if why == GoesOn::Unread {
            session.tell(&Notice::Unread);
        }
        return Ok(status);
    }
    session.tell(&Notice::Command(command.name(), why));
    if why != GoesOn::Abandoned {
        if let Some(status) = command.outlast(interrupts).await? {
            return Ok(status);
        }
        session.tell(&Notice::Command(command.name(), GoesOn::Abandoned));
    }
    Ok(interrupts.exit_code())
}

async fn finish(session: &mut Session<'_>, end: End, interrupts: &mut Interrupts) -> Result<()> {
    if session.args.wait && end == End::Complete {
        countdown::drain(session, interrupts).await?;
    }
    Ok(session.output.finish()?)
}
