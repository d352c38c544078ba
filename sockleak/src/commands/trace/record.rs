//! What a recording of a trace says of itself.

use std::env;

use anyhow::{Context as _, Result};
use jiff::{Timestamp, Zoned};
use sockleak_core::recording::{FORMAT, Header};
use sockleak_kernel::{clock, preflight};

use crate::commands::cli::TraceArgs;

/// The header of a recording that is begun now.
///
/// # Errors
/// When the kernel's tick rate cannot be read.
pub fn header(args: &TraceArgs) -> Result<Header> {
    let now = Zoned::now();
    Ok(Header {
        format: FORMAT,
        sockleak: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: preflight::release(),
        boot_id: preflight::boot_id(),
        time: Timestamp::now(),
        boottime: clock::boottime_ns(),
        hz: clock::hz().context("cannot read the kernel's tick rate")?,
        zone: now.time_zone().iana_name().map(str::to_owned),
        utc_offset: now.offset().seconds(),
        command_line: command_line(args),
    })
}

/// sockleak's own arguments and the name of COMMAND, whose own arguments may hold secrets.
fn command_line(args: &TraceArgs) -> Vec<String> {
    let all: Vec<String> = env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let secret = args.command.len().saturating_sub(1);
    all[..all.len().saturating_sub(secret)].to_vec()
}
