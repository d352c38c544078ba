//! `sockleak [trace]`: attach, follow, report.

mod aftermath;
mod countdown;
mod executing;
mod lending;
mod looks;
mod namespaces;
mod owned;
mod processes;
mod reports;
mod rivals;
mod session;
mod survey;
mod targets;

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use jiff::Timestamp;
use sockleak_ebpf::programs;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use self::session::Session;
use self::targets::Target;
use super::cli::{Common, TraceArgs};
use super::refuse_unmet;
use crate::kernel::clock::{self, BootClock};
use crate::kernel::load::{self, Preparation, Settings};
use crate::kernel::preflight::{self, Facts};
use crate::kernel::running::Kernel;
use crate::kernel::spawn::{self, Identity, RunningChild, StoppedChild};
use crate::kernel::tables::{self, Tables};
use crate::kernel::translate::Translator;
use crate::kernel::{proc, terminal, wait};
use crate::output::{Output, Watch};

/// How often a death that has not settled is looked at.
const STEP: Duration = Duration::from_millis(25);
/// How often lost events are looked for.
const SECOND: Duration = Duration::from_secs(1);
/// How often the maps are swept of what a living process closed long ago.
const SWEEP: Duration = Duration::from_secs(30);
/// A terminal's line may cost this fraction of the time.
const LIVE_SHARE: u32 = 20;

/// Runs the verb; the exit status.
///
/// # Errors
/// When the environment is refused, a target cannot be followed, or stdout cannot be written.
pub fn run(common: &Common, args: &TraceArgs) -> Result<u8> {
    let mut output = common.open_output(args.summary);
    let Some((program, arguments)) = args.command.split_first() else {
        return start(common, args, Begin::Nothing, output.as_mut()).map(|(status, _)| status);
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
    let (status, running) = start(common, args, Begin::Release(child), output.as_mut())?;
    Ok(match running {
        Some(mut running) => match running.try_wait_status()? {
            Some(ended) => exit_code(ended),
            // A second Ctrl-C ended sockleak and left COMMAND alone.
            None => 128 + libc::SIGINT as u8,
        },
        None => status,
    })
}

/// 128+N for signal N, as shells say it.
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
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

/// Attaches to the targets and follows them until the end; the exit status without COMMAND, and COMMAND.
///
/// # Errors
/// When the environment is refused, a target cannot be followed, or stdout cannot be written.
pub fn start(
    common: &Common,
    args: &TraceArgs,
    begin: Begin<'_>,
    output: &mut dyn Output,
) -> Result<(u8, Option<RunningChild>)> {
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
    let targets = args
        .pids
        .iter()
        .map(|pid| Target::find(*pid, true))
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
) -> Result<(u8, Option<RunningChild>)> {
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
    for target in targets {
        session.follow(target)?;
    }
    session.processes.remember_tables();
    let (listeners, connections) = session.count_sockets()?;
    session.output.watch(&Watch {
        time: Timestamp::now(),
        targets: watched,
        listeners,
        connections,
        kernel: preflight::release(),
        hooks: programs::ALL.map(str::to_owned).to_vec(),
    })?;
    let mut running = match begin {
        Begin::Nothing => None,
        Begin::Release(child) => Some(child.release()?),
        Begin::Call(call) => {
            call()?;
            None
        }
    };
    // Only reports need it.
    session.loaded.add_port_reader(kernel);
    let end = follow(
        &mut session,
        args,
        ring,
        dead,
        logger,
        &mut interrupts,
        running.as_mut(),
    )
    .await?;
    if args.wait && end == End::Complete {
        countdown::drain(&mut session, &mut interrupts).await?;
    }
    session.output.finish()?;
    if let Some(child) = running.as_mut() {
        child.try_wait_status().context("cannot wait for COMMAND")?;
    }
    Ok((u8::from(args.exit_code && session.left_behind), running))
}

/// How following ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything that was to be reported is.
    Complete,
    /// The user, or `--duration`, wanted no more.
    Cut,
}

/// Follows until the last process is reported, or the user has seen enough.
async fn follow(
    session: &mut Session<'_>,
    args: &TraceArgs,
    ring: RingBuf<MapData>,
    mut dead: UnboundedReceiver<u32>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    interrupts: &mut Interrupts,
    mut command: Option<&mut RunningChild>,
) -> Result<End> {
    let mut ring = wait::readable(ring).context("cannot wait for the event ring")?;
    let mut logger = logger
        .map(wait::readable)
        .transpose()
        .context("cannot wait for the programs' log")?;
    let mut step = interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut second = interval(SECOND);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP);
    let mut live_at = Instant::now() + SECOND;
    let mut look_at = Instant::now();
    let end = args.duration.map(|duration| Instant::now() + duration);
    loop {
        tokio::select! {
            guard = ring.readable_mut() => {
                let mut guard = guard?;
                session.drain(guard.get_inner_mut())?;
                guard.clear_ready();
            }
            Some(pid) = dead.recv() => session.died(pid),
            _ = step.tick(), if session.is_busy() => {
                // A child's fork may still wait in the ring when its parent's pidfd is readable.
                session.drain(ring.get_mut())?;
                session.tell_losses()?;
                session.report_settled()?;
                if session.processes.all_reported() || (args.once && session.target_reported) {
                    return Ok(End::Complete);
                }
            }
            _ = second.tick() => session.tell_losses()?,
            _ = sweep.tick() => session.sweep()?,
            () = log_readable(&mut logger) => {}
            () = tokio::time::sleep_until(live_at.into()), if terminal::stderr_width().is_some() && session.countdown.is_done() => {
                let before = Instant::now();
                session.show_watched()?;
                live_at = Instant::now() + (before.elapsed() * LIVE_SHARE).max(SECOND);
            }
            () = tokio::time::sleep_until(look_at.into()), if !session.countdown.is_done() => {
                countdown::look(session)?;
                look_at = Instant::now() + countdown::pause(session);
            }
            () = sleep_until(end) => {
                return cut(session, ring.get_mut());
            }
            received = interrupts.next() => match command.take() {
                Some(command) => pass_on(command, received),
                None => {
                    return cut(session, ring.get_mut());
                }
            },
        }
    }
}

/// Reports what lives. What was done to sockets until now may still wait in the ring.
fn cut(session: &mut Session<'_>, ring: &mut RingBuf<MapData>) -> Result<End> {
    session.drain(ring)?;
    session.tell_losses()?;
    session.report_living()?;
    Ok(End::Cut)
}

/// COMMAND decides what a signal means. A terminal sends Ctrl-C to it as well, which is not to arrive twice.
fn pass_on(command: &RunningChild, received: i32) {
    if received == libc::SIGINT && terminal::is_foreground() {
        return;
    }
    if let Err(error) = command.signal(received) {
        log::warn!("the signal could not be passed on: {error}");
    }
}

async fn log_readable(logger: &mut Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>) {
    match logger {
        Some(logger) => {
            if let Ok(mut guard) = logger.readable_mut().await {
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
        })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
        }
    }
}
