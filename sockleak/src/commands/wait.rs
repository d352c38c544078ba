//! `sockleak wait`: until a restart on a port would succeed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sockleak_core::port::{PortReport, Reuse};

use super::cli::{Common, WaitArgs};
use super::occupancy::{Occupancy, Scope};
use crate::exit_status::ExitStatus;
use crate::output::{Answer, Status, blind_sentences};

/// What ends without a timer of its own, because a peer answers or a process lets go, is noticed this late.
const STEP: Duration = Duration::from_secs(1);
/// A timer that is due fires within the slack of the timer wheel.
const SHORT_STEP: Duration = Duration::from_millis(100);

/// Returns when a restart would succeed, with 0, or at the timeout or when waiting cannot help, with 1. In JSON the last look is printed; in text
/// nothing is, but a timeout says what is in the way.
///
/// # Errors
/// When sock_diag or /proc cannot be read, when not all that may have the port can be seen, or stdout cannot be written.
pub fn run(common: &Common, args: &WaitArgs) -> Result<u8> {
    let reuse = args.bind.reuse();
    let end = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut occupancy = Occupancy::new(&args.bind)?;
    let mut output = common.open_output(false);
    loop {
        let report = occupancy.look(Scope::Own)?;
        if report.is_unseen(reuse) {
            output.clear()?;
            bail!(
                "whether a restart can bind port {} cannot be seen here\n{}",
                report.port,
                blind_sentences(&report.blind).join("\n")
            );
        }
        let is_free = report.is_free(reuse);
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if is_free || report.is_hopeless(reuse) || left.is_some_and(|left| left.is_zero()) {
            output.clear()?;
            output
                .answer(&Answer::Waited(&report, reuse))
                .context("cannot say how the wait ended")?;
            return Ok(ExitStatus::TimedOut.unless(is_free));
        }
        output.status(&Status::Waiting {
            now: report.time,
            port: report.port,
            free_at: report.free_at(reuse),
        })?;
        thread::sleep(step(&report, reuse).min(left.unwrap_or(STEP)));
    }
}

/// Until the answer can be another one.
fn step(report: &PortReport, reuse: Reuse) -> Duration {
    let until = report
        .free_at(reuse)
        .map(|at| Duration::try_from(at.duration_since(report.time)).unwrap_or_default());
    until.unwrap_or(STEP).clamp(SHORT_STEP, STEP)
}
