//! Follows a trace until its end: observations are examined, and what they mean is handed on.

use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sockleak_core::event::Event;
use sockleak_core::examiner::Examiner;
use sockleak_core::expiry::FreeRule;
use sockleak_core::observed::Observation;
use sockleak_kernel::terminal;

use super::command::Command;
use super::interrupts::Interrupts;
use crate::output::{Notice, Output, Status};
use crate::session::{End, Live, Next};
use crate::sinks::{Failure, Sinks};

/// How often a terminal shows what is watched.
const SECOND: Duration = Duration::from_secs(1);
/// That line may cost this fraction of the time.
const STATUS_SHARE: u32 = 20;

/// A trace on its way.
pub struct Run<'a> {
    pub live: Live,
    pub examiner: Examiner,
    pub sinks: Sinks<'a, dyn Output + 'a>,
    /// The trace ends after the first report of a target.
    pub once: bool,
    /// Something was left behind or is still held.
    pub left_behind: bool,
}

/// How following ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// By itself, by `--duration`, or because the user wanted no more.
    ToTheEnd,
    /// A second signal came: the user would not wait for the reports.
    Abandoned,
}

impl Run<'_> {
    /// Waits for the first observation, which says what is watched, and hands it on.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub async fn begin(&mut self) -> Result<()> {
        match self.live.next(self.examiner.countdown()).await? {
            Next::Observed(began) => self.deliver(began),
            Next::Settled | Next::Over => Ok(()),
        }
    }

    /// Follows until the last process is reported, or the user has seen enough.
    ///
    /// # Errors
    /// When sock_diag does not answer, or stdout cannot be written.
    pub async fn follow(
        &mut self,
        duration: Option<Duration>,
        interrupts: &mut Interrupts,
        mut command: Option<&mut Command>,
    ) -> Result<Followed> {
        let mut end = duration.map(|duration| Instant::now() + duration);
        let mut status_at = Instant::now() + SECOND;
        let has_terminal = terminal::stderr_width().is_some();
        loop {
            let due = self.examiner.due();
            tokio::select! {
                next = self.live.next(self.examiner.countdown()) => match next? {
                    Next::Observed(observation) => self.deliver(observation)?,
                    Next::Settled => {
                        if let Some(left) = self.live.who_is_left() {
                            self.say(&Notice::StillFollowing(left));
                        }
                    }
                    Next::Over => return Ok(Followed::ToTheEnd),
                },
                // A replay knows no other time than that of the observations.
                () = sleep_until_time(due), if self.live.is_caught_up() => {
                    let events = self.examiner.advance(Timestamp::now());
                    self.hand_on(events)?;
                }
                () = tokio::time::sleep_until(status_at.into()) => {
                    let before = Instant::now();
                    if has_terminal && self.examiner.countdown().is_done() {
                        self.show_watched()?;
                    }
                    status_at = Instant::now() + (before.elapsed() * STATUS_SHARE).max(SECOND);
                }
                () = sleep_until(end), if !self.live.is_ending() => {
                    // It is over once.
                    end = None;
                    self.live.wind_up(End::Cut);
                }
                received = interrupts.next() => {
                    if self.live.is_complete() {
                        self.live.wind_up(End::Cut);
                        continue;
                    }
                    if interrupts.is_second() {
                        return Ok(Followed::Abandoned);
                    }
                    let status = command.as_mut().map(|command| command.status()).transpose()?;
                    match &command {
                        // It decides what the signal means, as long as it runs.
                        Some(command) if status == Some(None) => command.pass_on(received),
                        _ => self.live.wind_up(End::Cut),
                    }
                }
            }
        }
    }

    /// Says something on stderr. That nobody reads it changes nothing.
    pub fn say(&mut self, notice: &Notice) {
        let _ = self.sinks.first().notice(notice);
    }

    /// Ends what the readers have of the trace.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        let (failures, missed) = self.sinks.finish()?;
        self.tell(failures);
        for (sink, count) in missed {
            self.say(&Notice::SinkMissed(sink, count));
        }
        Ok(())
    }

    fn deliver(&mut self, observation: Observation) -> Result<()> {
        let failures = self.sinks.observe(&observation);
        self.tell(failures);
        let is_look = matches!(observation, Observation::Looked(_));
        let events = self.examiner.take(observation);
        self.hand_on(events)?;
        if is_look {
            self.show_countdown()?;
        }
        Ok(())
    }

    fn hand_on(&mut self, events: Vec<Event>) -> Result<()> {
        for event in events {
            let failures = self.sinks.take(&event)?;
            self.tell(failures);
            if let Event::Report(report) = &event {
                self.left_behind |= report.left_something();
                if self.once && report.process.target {
                    self.live.wind_up(End::Complete);
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, failures: Vec<Failure>) {
        for Failure { sink, error } in failures {
            self.say(&Notice::SinkFailed(sink, error.to_string()));
        }
    }

    /// Shows on a terminal what is watched.
    fn show_watched(&mut self) -> Result<()> {
        let (processes, open) = self.live.count()?;
        let sockets = open.map(|open| open.listeners + open.connections);
        self.sinks
            .first()
            .status(&Status::Watching { processes, sockets })?;
        Ok(())
    }

    /// Shows on a terminal what is left.
    fn show_countdown(&mut self) -> Result<()> {
        let countdown = self.examiner.countdown();
        let (held, leftovers): (Vec<_>, Vec<_>) = countdown
            .leftovers()
            .partition(|leftover| leftover.freedom.rule == FreeRule::Holder);
        let status = Status::Draining {
            now: Timestamp::now(),
            leftovers: leftovers.len() as u64,
            held: held.len() as u64,
            last: countdown.last(),
        };
        self.sinks.first().status(&status)?;
        Ok(())
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_time(due: Option<Timestamp>) {
    match due {
        Some(due) => {
            let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(left).await;
        }
        None => std::future::pending().await,
    }
}
