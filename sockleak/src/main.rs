//! The command line, and what its end means for the exit status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use log::LevelFilter;
use sockleak::commands::{self, cli::Cli};
use sockleak::exit_status::ExitStatus;
use sockleak::output::escape;
use sockleak_kernel::spawn::SpawnError;

fn main() -> ExitCode {
    let cli = match Cli::try_parse().and_then(|cli| commands::validate(&cli).map(|()| cli)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let level = match cli.common.verbose {
        0 => LevelFilter::Error,
        1 => LevelFilter::Warn,
        _ => LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_module("sockleak", level)
        .format_timestamp(None)
        .init();
    match commands::run(&cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) if commands::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = in_words(&error);
            let lines: Vec<_> = text.lines().map(escape).collect();
            // Nobody is left to tell when stderr is closed too.
            let _ = writeln!(io::stderr(), "sockleak: {}", lines.join("\n"));
            ExitCode::from(failure(&error, &cli))
        }
    }
}

/// The error and its causes. Most say their cause themselves, and then it is not said again.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

/// Prints help to stdout, and an error with a line of usage to stderr.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render();
    if !error.use_stderr() {
        return match write!(io::stdout(), "{text}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                ExitCode::from(ExitStatus::Refused.code())
            }
            _ => ExitCode::SUCCESS,
        };
    }
    let text = text.to_string();
    let mut told = text.trim_end().to_owned();
    if !text.contains("Usage:") {
        told = format!("{}\n\n{told}", Cli::command().render_usage());
    }
    let _ = writeln!(io::stderr(), "{told}");
    ExitCode::from(ExitStatus::Refused.code())
}

fn failure(error: &anyhow::Error, cli: &Cli) -> u8 {
    if let Some(error) = error.downcast_ref::<SpawnError>() {
        return error.exit_code();
    }
    let has_command = cli.trace_args().is_some_and(|trace| !trace.command.is_empty());
    let status = if has_command {
        ExitStatus::Failed
    } else {
        ExitStatus::Refused
    };
    status.code()
}
