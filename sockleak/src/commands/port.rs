//! `sockleak port`: who has a port now, and whether a restart can have it.

use anyhow::Result;

use super::cli::{BindArgs, Common};
use super::occupancy::{Occupancy, Scope};
use crate::exit_status::ExitStatus;
use crate::output::Answer;

/// Prints what has the port in every network namespace that may be looked into; the exit status is 1 when a restart
/// in this one would fail.
///
/// # Errors
/// When sock_diag or /proc cannot be read, or stdout cannot be written.
pub fn run(common: &Common, args: &BindArgs) -> Result<u8> {
    let report = Occupancy::new(args)?.look(Scope::All)?;
    common.open_output(false).answer(&Answer::Port(&report))?;
    Ok(ExitStatus::WouldFail.unless(report.is_free(args.reuse())))
}
