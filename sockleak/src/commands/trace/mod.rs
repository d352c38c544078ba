//! `sockleak [trace]`: attach, follow, report.

mod command;
mod interrupts;
mod record;
mod run;
mod wait_status;

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context as _, Result};
use sockleak_core::examiner::{Examiner, Wanted};
use sockleak_kernel::kernel_types::KernelTypes;
use sockleak_kernel::load;
use sockleak_kernel::preflight::Facts;
use sockleak_kernel::spawn::{self, Identity, StoppedChild};
use sockleak_kernel::{descriptors, proc};

use self::command::Command;
use self::interrupts::Interrupts;
use self::run::{Followed, Run};
use super::cli::{Common, TraceArgs};
use super::{is_broken_pipe, refuse_unmet};
use crate::exit_status::ExitStatus;
use crate::output::{GoesOn, Notice, Output};
use crate::session::{Live, Settings, Target};
use crate::sinks::{Recorder, Sinks};

/// Runs the verb; the exit status.
///
/// # Errors
/// When the environment is refused, a target cannot be followed, or stdout cannot be written.
pub fn run(common: &Common, args: &TraceArgs) -> Result<u8> {
    let mut output = common.open_output(args.summary);
    let Some((program, arguments)) = args.command.split_first() else {
        return start(common, args, Begin::Nothing, output.as_mut());
    };
    let identity = args
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
    let programs = load::Settings {
        follow_children: !args.no_follow,
        max_sockets: args.max_sockets(),
        open_descriptors: open_descriptors(&args.pids, !args.no_follow),
        ring_size: args.ring_size(),
        log: common.verbose > 0,
    };
    let facts = Facts::gather();
    refuse_unmet(&facts.requirements())?;
    let kernel = facts.btf?;
    let pids: BTreeSet<u32> = args.pids.iter().copied().collect();
    let mut targets = pids
        .into_iter()
        .map(|pid| Target::find(pid, true))
        .collect::<Result<Vec<_>>>()?;
    if let (Begin::Release(child), [target]) = (&begin, &mut targets[..]) {
        // It has the name of sockleak until it is let go.
        child.program().clone_into(&mut target.process.comm);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(trace(args, (&kernel, &programs), targets, begin, output))
}

async fn trace(
    args: &TraceArgs,
    (kernel, programs): (&KernelTypes, &load::Settings),
    targets: Vec<Target>,
    begin: Begin<'_>,
    output: &mut dyn Output,
) -> Result<u8> {
    let mut interrupts = Interrupts::new()?;
    let settings = Settings {
        follow_children: !args.no_follow,
        settle: args.settle,
    };
    let mut run = Run {
        live: Live::attach(kernel, programs, targets, settings)?,
        examiner: Examiner::new(Wanted {
            only_failed: args.failed,
            countdown: args.wait,
        }),
        sinks: Sinks::new(output),
        once: args.once,
        left_behind: false,
    };
    if let Some(file) = &args.record {
        let recorder = Recorder::create(file, record::header(args)?)?;
        run.sinks.add(Box::new(recorder));
    }
    let watching = run.begin().await;
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
    run.live.add_port_reader(kernel);
    let mut followed = match watching {
        Ok(()) => run.follow(args.duration, &mut interrupts, command.as_mut()).await,
        Err(unread) => Err(unread),
    };
    // Of a trace that was given up, a recording has no end mark.
    if matches!(followed, Ok(Followed::ToTheEnd))
        && let Err(error) = run.finish()
    {
        followed = Err(error);
    }
    conclude(&mut run, followed, (&mut interrupts, command), args.exit_code).await
}

/// What comes after following: the exit status, and COMMAND, which is never left alone without a word.
async fn conclude(
    run: &mut Run<'_>,
    followed: Result<Followed>,
    (interrupts, command): (&mut Interrupts, Option<Command>),
    exit_code: bool,
) -> Result<u8> {
    let why = match &followed {
        Err(error) if is_broken_pipe(error) => GoesOn::Unread,
        Err(_) => GoesOn::Untraced,
        Ok(Followed::Abandoned) => GoesOn::Abandoned,
        Ok(Followed::ToTheEnd) => GoesOn::TimeIsUp,
    };
    let failed = followed.err().filter(|_| why == GoesOn::Untraced);
    let Some(mut command) = command else {
        if let Some(error) = failed {
            return Err(error);
        }
        return Ok(match why {
            GoesOn::Unread => {
                run.say(&Notice::Unread);
                ExitStatus::Done.code()
            }
            GoesOn::Abandoned => interrupts.exit_code(),
            _ => ExitStatus::LeftBehind.unless(!(exit_code && run.left_behind)),
        });
    };
    if let Some(error) = failed {
        run.say(&Notice::Failed(format!("{error:#}")));
    }
    if let Some(status) = command.status()? {
        if why == GoesOn::Unread {
            run.say(&Notice::Unread);
        }
        return Ok(status);
    }
    run.say(&Notice::Command(command.name(), why));
    if why != GoesOn::Abandoned {
        if let Some(status) = command.outlast(interrupts).await? {
            return Ok(status);
        }
        run.say(&Notice::Command(command.name(), GoesOn::Abandoned));
    }
    Ok(interrupts.exit_code())
}
