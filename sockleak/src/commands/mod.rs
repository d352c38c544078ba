//! One file for each verb: gather, follow, hand to output.

mod check;
pub mod cli;
mod demo;
mod free;
mod occupancy;
mod port;
mod replay;
mod trace;
mod users;
mod wait;

use std::io;

use anyhow::{Result, bail};
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use sockleak_kernel::preflight::Requirement;

use self::cli::{Cli, TraceArgs, Verb};

/// Runs what the command line asks for; the exit status.
///
/// # Errors
/// When the environment is refused, or something failed on the way.
pub fn run(cli: &Cli) -> Result<u8> {
    match &cli.verb {
        None => trace::run(&cli.common, &cli.trace),
        Some(Verb::Trace(args)) => trace::run(&cli.common, args),
        Some(Verb::Port(args)) => port::run(&cli.common, args),
        Some(Verb::Wait(args)) => wait::run(&cli.common, args),
        Some(Verb::Replay(args)) => replay::run(&cli.common, args),
        Some(Verb::Demo) => demo::run(&cli.common),
        Some(Verb::Check(args)) => check::run(&cli.common, args),
        Some(Verb::Free(args)) => free::run(&cli.common, args),
    }
}

/// What the grammar alone cannot refuse: no target, and options of the trace in front of a verb.
///
/// # Errors
/// A usage error.
pub fn validate(cli: &Cli) -> Result<(), clap::Error> {
    let usage = |kind, message: &str| Err(Cli::command().error(kind, message));
    if cli.verb.is_some() && cli.trace != TraceArgs::default() {
        return usage(
            ErrorKind::ArgumentConflict,
            "options of the trace come after the verb: sockleak trace --pid PID",
        );
    }
    if cli
        .trace_args()
        .is_some_and(|trace| trace.pids.is_empty() && trace.command.is_empty())
    {
        return usage(
            ErrorKind::MissingRequiredArgument,
            "nothing to trace: give --pid PID, or -- COMMAND ARGS",
        );
    }
    Ok(())
}

/// Refuses to start where a requirement is not met.
fn refuse_unmet(requirements: &[Requirement]) -> Result<()> {
    let unmet: Vec<String> = requirements
        .iter()
        .filter(|requirement| requirement.required && !requirement.met)
        .map(|requirement| {
            let fix = requirement.fix.as_deref().unwrap_or("see `sockleak check`");
            format!("{}: {}\n  fix: {fix}", requirement.name, requirement.detail)
        })
        .collect();
    if unmet.is_empty() {
        return Ok(());
    }
    bail!("sockleak cannot trace here\n{}", unmet.join("\n"))
}

/// Stdout is closed, which is success: whoever reads has seen enough.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
