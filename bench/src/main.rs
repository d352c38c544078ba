//! `cargo xtask bench`: real crashes, measured by the kernel's own accounting, beside the peers that are installed.
//!
//! A scenario ([`scenarios`]) makes crashes ([`crash`]) or an unrelated process's connections while a tool ([`tools`])
//! looks on, and keeps what the kernel says of it ([`accounting`], [`process`]) as samples ([`samples`]). The tables
//! ([`table`]) are made of nothing but these samples, which `--json` writes down ([`json`]).

mod accounting;
mod children;
mod crash;
mod fdinfo;
mod json;
mod machine;
mod markdown;
mod output;
mod plan;
mod process;
mod roles;
mod samples;
mod scenarios;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use self::machine::Machine;
use self::plan::{Bench, Sizes};
use self::samples::{Samples, Scenario};
use self::tools::Installed;

/// Measures sockleak beside bpftrace and tcpstates: what it costs, what it misses, how fast it answers.
///
/// Every figure is the kernel's: run time and run count of each BPF program, CPU clocks, resident memory. Tools take
/// turns within a round, and their order rotates from round to round; what is short is repeated within it. No time is
/// asserted: the exit status tells only whether everything ran and every report was complete.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    args_conflicts_with_subcommands = true,
    after_help = "Scenarios:\n  \
        uninvolved  an unrelated process connects, accepts and closes\n  \
        crash       a process with 18,001 sockets opens them and dies by SIGSEGV\n  \
        walk        the walk over its table\n  \
        answer      from the last close to the text report, beside `ss -tano`\n  \
        curve       the crash with 0 to 160,000 sockets\n\n\
        Peers are used where they are installed: apt install bpftrace libbpf-tools"
)]
struct Options {
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure these scenarios only.
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',', value_enum)]
    only: Vec<Scenario>,
    /// One round with few sockets, in seconds: whether everything runs and every report is complete.
    #[arg(long, conflicts_with = "rounds")]
    smoke: bool,
    /// Keep every sample, with what machine it was, in this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Put the tables into the first block of text of this document.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The sockleak to measure.
    #[arg(long, value_name = "PATH", hide = true)]
    sockleak: Option<PathBuf>,
    /// The commit that it was built from.
    #[arg(long, value_name = "HASH", hide = true)]
    commit: Option<String>,
    /// What this process is in a measurement; the bench starts itself for that.
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
#[command(disable_help_subcommand = true)]
enum Role {
    /// Opens sockets as it is told on stdin.
    #[command(hide = true)]
    Load,
    /// Makes connections as it is told on stdin.
    #[command(hide = true)]
    Churn,
    /// Attaches the bare program until stdin ends.
    #[command(hide = true)]
    Bare,
    /// Makes a change of state and ends.
    #[command(hide = true)]
    Event,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.role {
        Some(Role::Load) => roles::load::run(),
        Some(Role::Churn) => roles::churn::run(),
        Some(Role::Bare) => roles::bare::run(),
        Some(Role::Event) => crash::make_an_event(),
        None => measure(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let sockleak = options.sockleak.clone();
    let sockleak = sockleak.context("which sockleak? `cargo xtask bench` says it")?;
    let installed = Installed::find();
    for hint in installed.hints() {
        eprintln!("{hint}");
    }
    let machine = Machine::here(options.commit.clone());
    let sizes = if options.smoke {
        Sizes::smoke()
    } else {
        Sizes::full()?
    };
    let bench = Bench {
        sockleak,
        installed,
        sizes,
    };
    let mut samples = Samples::default();
    let rounds = if options.smoke { 1 } else { options.rounds };
    for round in 0..rounds {
        for scenario in Scenario::ALL {
            if options.only.is_empty() || options.only.contains(&scenario) {
                eprintln!("round {} of {rounds}: {scenario}", round + 1);
                scenarios::run(&bench, scenario, round, &mut samples)
                    .with_context(|| format!("{scenario} could not be measured"))?;
            }
        }
    }
    if let Some(path) = &options.json {
        json::write(path, &machine, &samples)?;
    }
    let tables = table::render(&machine, rounds, &samples);
    print!("{tables}");
    if let Some(path) = &options.markdown {
        markdown::update(path, &tables)?;
    }
    let failures = samples.failures();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
