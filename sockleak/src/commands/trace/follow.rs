//! Follows what is watched until the end: the loop that waits for the ring, deaths, timers and signals.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use sockleak_kernel::{terminal, wait};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::command::Command;
use super::countdown;
use super::interrupts::Interrupts;
use super::processes::ProcessId;
use super::session::Session;

type Logger = EbpfLogger<&'static dyn log::Log>;

/// How often a death that has not settled is looked at.
const STEP: Duration = Duration::from_millis(25);
/// How often lost events are looked for.
const SECOND: Duration = Duration::from_secs(1);
/// How often the maps are swept of what a living process closed long ago.
const SWEEP: Duration = Duration::from_secs(30);
/// A terminal's line may cost this fraction of the time.
const LIVE_SHARE: u32 = 20;
/// The reports of what died before the end was wanted are made at the latest this long after: what settles takes a second.
const LAST_REPORTS: Duration = Duration::from_millis(1250);

/// How following ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything that was to be reported is.
    Complete,
    /// The user, or `--duration`, wanted no more.
    Cut,
    /// A second signal came: the user would not wait for the reports.
    Abandoned,
}

/// The end is wanted: what has died is reported, and then nothing more.
#[derive(Clone, Copy)]
struct Ending {
    end: End,
    /// Nothing is waited for any longer.
    deadline: Instant,
}

/// What the kernel tells.
pub struct Sources {
    ring: AsyncFd<RingBuf<MapData>>,
    dead: UnboundedReceiver<ProcessId>,
    logger: Option<AsyncFd<Logger>>,
}

impl Sources {
    /// # Errors
    /// When a descriptor cannot be waited for.
    pub fn new(
        ring: RingBuf<MapData>,
        dead: UnboundedReceiver<ProcessId>,
        logger: Option<Logger>,
    ) -> Result<Self> {
        Ok(Self {
            ring: wait::readable(ring).context("cannot wait for the event ring")?,
            dead,
            logger: logger
                .map(wait::readable)
                .transpose()
                .context("cannot wait for the programs' log")?,
        })
    }
}

/// The moments at which something is due.
pub struct Timers {
    step: Interval,
    second: Interval,
    sweep: Interval,
    live_at: Instant,
    look_at: Instant,
    /// `--duration` is over.
    end: Option<Instant>,
    ending: Option<Ending>,
}

impl Timers {
    pub fn new(duration: Option<Duration>) -> Self {
        let every = |period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let now = Instant::now();
        Self {
            step: every(STEP),
            second: every(SECOND),
            sweep: every(SWEEP),
            live_at: now + SECOND,
            look_at: now,
            end: duration.map(|duration| now + duration),
            ending: None,
        }
    }

    fn wind_up(&mut self, end: End) {
        let deadline = Instant::now() + LAST_REPORTS;
        let ending = self.ending.get_or_insert(Ending { end, deadline });
        // Who wants no more does not want a countdown either.
        if end == End::Cut {
            ending.end = end;
        }
        // It is over once.
        self.end = None;
    }
}

/// Follows until the last process is reported, or the user has seen enough.
///
/// # Errors
/// When sock_diag does not answer, or stdout cannot be written.
pub async fn follow(
    session: &mut Session<'_>,
    (sources, timers): (&mut Sources, &mut Timers),
    interrupts: &mut Interrupts,
    mut command: Option<&mut Command>,
) -> Result<End> {
    let Sources { ring, dead, logger } = sources;
    loop {
        tokio::select! {
            guard = ring.readable_mut() => {
                let mut guard = guard?;
                session.drain(guard.get_inner_mut())?;
                guard.clear_ready();
            }
            Some(id) = dead.recv() => session.died(id),
            _ = timers.step.tick(), if session.is_busy() || timers.ending.is_some() => {
                // A child's fork may still wait in the ring when its parent's pidfd is readable.
                session.drain(ring.get_mut())?;
                session.tell_losses()?;
                if let Some(end) = step(session, timers)? {
                    return Ok(end);
                }
            }
            _ = timers.second.tick() => session.tell_losses()?,
            _ = timers.sweep.tick() => session.sweep()?,
            () = log_readable(logger) => {}
            () = tokio::time::sleep_until(timers.live_at.into()), if terminal::stderr_width().is_some() && session.countdown.is_done() => {
                let before = Instant::now();
                session.show_watched()?;
                timers.live_at = Instant::now() + (before.elapsed() * LIVE_SHARE).max(SECOND);
            }
            () = tokio::time::sleep_until(timers.look_at.into()), if !session.countdown.is_done() => {
                countdown::look(session)?;
                timers.look_at = Instant::now() + countdown::pause(session);
            }
            () = sleep_until(timers.end) => timers.wind_up(End::Cut),
            received = interrupts.next() => {
                if interrupts.is_second() {
                    return Ok(End::Abandoned);
                }
                let status = command.as_mut().map(|command| command.status()).transpose()?;
                match &command {
                    // It decides what the signal means, as long as it runs.
                    Some(command) if status == Some(None) => command.pass_on(received),
                    _ => timers.wind_up(End::Cut),
                }
            }
        }
    }
}

/// Makes the reports that are due. What ends the trace, if something does.
fn step(session: &mut Session<'_>, timers: &mut Timers) -> Result<Option<End>> {
    session.await_dying()?;
    let is_late = timers
        .ending
        .is_some_and(|ending| Instant::now() >= ending.deadline);
    session.report_settled(is_late)?;
    if session.processes.all_reported() {
        return Ok(Some(timers.ending.map_or(End::Complete, |ending| ending.end)));
    }
    if session.args.once && session.target_reported {
        timers.wind_up(End::Complete);
    }
    let Some(ending) = timers.ending.filter(|_| is_late || !session.is_busy()) else {
        if timers.ending.is_none() {
            session.tell_who_is_left();
        }
        return Ok(None);
    };
    if ending.end == End::Cut {
        session.report_living()?;
    }
    Ok(Some(ending.end))
}

async fn log_readable(logger: &mut Option<AsyncFd<Logger>>) {
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
