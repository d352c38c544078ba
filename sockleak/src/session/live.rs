//! A trace of living processes as a source of observations.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use sockleak_core::leftover::Countdown;
use sockleak_core::observed::{
    Loss, Observation, OpenSockets, ProcessChange, ProcessEvent, ProcessId, Watching,
};
use sockleak_kernel::inventory::{Events, ProgramLog};
use sockleak_kernel::kernel_types::KernelTypes;
use sockleak_kernel::load;
use sockleak_kernel::load::Programs;
use sockleak_kernel::tracer::{HOOKS, Tracer};
use sockleak_kernel::{clock, preflight};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::collector::Collector;
use super::evidence::{self, Parts};
use super::look;
use super::losses::Losses;
use super::target::Target;
use super::timers::{End, Timers};
use super::watch::Watch;

/// A socket that a living process closed is of no interest when it has been gone for this long.
const STALE: Duration = Duration::from_secs(300);

/// How a trace is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Descendants are watched too.
    pub follow_children: bool,
    /// How long the kernel has for what it does at once; by need where the user did not say.
    pub settle: Option<Duration>,
}

/// A trace of living processes.
pub struct Live {
    programs: Programs,
    events: Events,
    log: Option<ProgramLog>,
    dead: UnboundedReceiver<ProcessId>,
    watch: Watch,
    losses: Losses,
    collector: Collector,
    timers: Timers,
    /// What was observed and not asked for yet.
    observed: VecDeque<Observation>,
    /// Whose evidence is being taken.
    taking: Option<Taking>,
    progress: Progress,
    /// The evidence that was due was given.
    settled: bool,
    told_who_is_left: bool,
}

/// What comes next in a trace.
pub enum Next {
    Observed(Observation),
    /// All evidence that was due was given: who is left can be told.
    Settled,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// Of the dead; of all of them, if there is no later time.
    Dead { is_last: bool },
    /// Of the living, at the end.
    Living,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Watching,
    /// Everything is reported; what is left may still be followed.
    Complete,
    Over,
}

impl Live {
    /// Attaches to the targets.
    ///
    /// # Errors
    /// When the kernel refuses the tracer, or a target died meanwhile.
    pub fn attach(
        kernel: &KernelTypes,
        programs: &load::Settings,
        targets: Vec<Target>,
        settings: Settings,
    ) -> Result<Self> {
        let tracer = Tracer::attach(kernel, programs)?;
        let (deaths, dead) = unbounded_channel();
        let mut watch = Watch::new(tracer.inventory, deaths);
        watch.attach(targets, settings.follow_children)?;
        let sockets = watch.count_sockets()?;
        let began = Observation::Began(Watching {
            time: Timestamp::now(),
            processes: watch.watched(),
            sockets,
            kernel: preflight::release(),
            hooks: HOOKS.iter().map(|hook| (*hook).to_owned()).collect(),
            hz: watch.inventory().hz(),
        });
        Ok(Self {
            programs: tracer.programs,
            events: tracer.events,
            log: tracer.log,
            dead,
            watch,
            losses: Losses::default(),
            collector: Collector::new(settings.settle),
            timers: Timers::new(),
            observed: VecDeque::from([began]),
            taking: None,
            progress: Progress::Watching,
            settled: false,
            told_who_is_left: false,
        })
    }

    /// Loads what only evidence needs.
    pub fn add_port_reader(&mut self, kernel: &KernelTypes) {
        self.programs.add_port_reader(kernel);
    }

    /// The next observation, and when some came to an end. `countdown` is what is left of what was reported, now that everything
    /// until here was examined. Nothing is lost when the call is given up.
    ///
    /// # Errors
    /// When the maps or sock_diag cannot be read.
    pub async fn next(&mut self, countdown: &Countdown) -> Result<Next> {
        loop {
            if let Some(observed) = self.observed.pop_front() {
                return Ok(Next::Observed(observed));
            }
            if let Some(taking) = self.taking {
                self.take_evidence(taking)?;
                continue;
            }
            if std::mem::take(&mut self.settled) {
                return Ok(Next::Settled);
            }
            self.timers.plan_look(countdown);
            match self.progress {
                Progress::Over => return Ok(Next::Over),
                Progress::Complete if countdown.is_done() => self.finish(),
                Progress::Complete => {
                    sleep_until(self.timers.look_at()).await;
                    self.look(countdown)?;
                }
                Progress::Watching => self.wait(countdown).await?,
            }
        }
    }

    /// Waits for the next thing that happens.
    async fn wait(&mut self, countdown: &Countdown) -> Result<()> {
        let is_pressed = self.is_busy() || self.timers.ending().is_some();
        let look_at = self.timers.look_at();
        tokio::select! {
            ready = self.events.readable() => {
                ready?;
                self.drain()?;
            }
            Some(id) = self.dead.recv() => self.watch.died(id),
            _ = self.timers.step.tick(), if is_pressed => self.step()?,
            _ = self.timers.second.tick() => {
                self.notice_losses()?;
                self.watch.read_unread();
            }
            _ = self.timers.sweep.tick() => {
                self.watch.find_missed_deaths();
                self.watch.inventory_mut().forget_stale(STALE)?;
            }
            () = forward(&mut self.log) => {}
            () = sleep_until(look_at) => self.look(countdown)?,
        }
        Ok(())
    }

    /// Ends soon: what was seen dead or dying is observed as it settles, and at the end what lives if the user wants no
    /// more.
    pub fn wind_up(&mut self, end: End) {
        if self.progress == Progress::Complete {
            self.finish();
        } else {
            self.timers.wind_up(end);
        }
    }

    /// How many processes are alive, and what the targets of them have open.
    ///
    /// # Errors
    /// When sock_diag does not answer.
    pub fn count(&mut self) -> Result<(u64, Option<OpenSockets>)> {
        let sockets = self.watch.count_sockets()?;
        Ok((self.watch.processes().alive().count() as u64, sockets))
    }

    /// Once the targets are reported: who is still watched, by PID and `comm`. It is told once.
    pub fn who_is_left(&mut self) -> Option<Vec<(u32, String)>> {
        let processes = self.watch.processes();
        if self.told_who_is_left || self.is_ending() || self.is_busy() || !processes.targets_reported() {
            return None;
        }
        self.told_who_is_left = true;
        let left = self.watch.processes().alive();
        let left: Vec<_> = left
            .map(|(id, watched)| (id.pid, watched.process.comm.clone()))
            .collect();
        (!left.is_empty()).then_some(left)
    }

    /// Everything that was to be reported is; what is left may still be followed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.progress != Progress::Watching
    }

    /// The end was begun, or has come.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_complete() || self.timers.ending().is_some()
    }

    /// Everything that was observed was given: time may pass for who examines it.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.observed.is_empty() && self.taking.is_none()
    }

    /// Something is dead and its evidence was not taken.
    fn is_busy(&self) -> bool {
        let processes = self.watch.processes();
        processes.dead().next().is_some() || processes.dying().next().is_some()
    }

    /// Takes every event out of the ring.
    fn drain(&mut self) -> Result<()> {
        while let Some(event) = self.events.take() {
            self.observed.extend(self.watch.take(event)?);
        }
        Ok(())
    }

    /// Finds out what was lost since the last time, and what of it can be made good.
    fn notice_losses(&mut self) -> Result<()> {
        let events = evidence::lost_events(&self.watch, &self.programs);
        if self.losses.has_many() {
            let deaths = self.watch.inventory().deaths();
            let oldest = deaths.iter().map(|death| death.time).min();
            self.losses
                .forget_before(oldest.unwrap_or_else(clock::boottime_ns));
        }
        let Some(new) = self.losses.notice(events, self.watch.unwatched()) else {
            return Ok(());
        };
        let time = Timestamp::now();
        self.observed.push_back(Observation::Lost(Loss {
            time,
            events: new.events,
            processes: new.processes,
        }));
        for (child, parent) in self.watch.find_overlooked()? {
            self.observed.push_back(Observation::Process(ProcessEvent {
                time,
                pid: parent,
                comm: self.watch.comm_of(parent),
                change: ProcessChange::Forked { child },
            }));
        }
        Ok(())
    }

    /// Takes the evidence that is due.
    fn step(&mut self) -> Result<()> {
        // A child's fork may still wait in the ring when its parent's pidfd is readable.
        self.drain()?;
        self.notice_losses()?;
        self.watch.await_dying()?;
        let is_last = self.timers.is_late();
        let mut parts = parts(&mut self.watch, &mut self.programs, &self.losses);
        for (pid, comm) in self.collector.begin(&mut parts, is_last)? {
            self.observed.push_back(Observation::Process(ProcessEvent {
                time: Timestamp::now(),
                pid,
                comm,
                change: ProcessChange::Ended,
            }));
        }
        self.taking = Some(Taking::Dead { is_last });
        Ok(())
    }

    /// Takes the next evidence of those that were looked at; after the last one, sees whether the trace is over.
    fn take_evidence(&mut self, taking: Taking) -> Result<()> {
        let mut parts = parts(&mut self.watch, &mut self.programs, &self.losses);
        let evidence = self.collector.next(&mut parts)?.map(Box::new);
        match (evidence, taking) {
            (Some(evidence), Taking::Dead { .. }) => self.observed.push_back(Observation::Dead(evidence)),
            (Some(evidence), Taking::Living) => self.observed.push_back(Observation::Living(evidence)),
            (None, Taking::Living) => self.finish(),
            (None, Taking::Dead { is_last }) => {
                self.taking = None;
                self.settled = true;
                self.conclude(is_last)?;
            }
        }
        Ok(())
    }

    /// Whether the trace is over, now that what was due is observed.
    fn conclude(&mut self, is_last: bool) -> Result<()> {
        let ending = self.timers.ending();
        let all_reported = self.watch.processes().all_reported();
        if !all_reported && (ending.is_none() || (self.is_busy() && !is_last)) {
            return Ok(());
        }
        match ending {
            Some(End::Cut) if all_reported => self.finish(),
            Some(End::Cut) => {
                let mut parts = parts(&mut self.watch, &mut self.programs, &self.losses);
                self.collector.begin_living(&mut parts)?;
                self.taking = Some(Taking::Living);
            }
            Some(End::Complete) | None => self.progress = Progress::Complete,
        }
        Ok(())
    }

    /// Looks at what is left of what was reported.
    fn look(&mut self, countdown: &Countdown) -> Result<()> {
        for namespace in countdown.next_look() {
            self.observed
                .push_back(Observation::Looked(Box::new(look::at(&namespace)?)));
        }
        self.timers.looked();
        Ok(())
    }

    fn finish(&mut self) {
        self.taking = None;
        self.progress = Progress::Over;
        let time = Timestamp::now();
        self.observed.push_back(Observation::Ended { time });
    }
}

const fn parts<'a>(watch: &'a mut Watch, programs: &'a mut Programs, losses: &'a Losses) -> Parts<'a> {
    Parts {
        watch,
        programs,
        losses,
    }
}

async fn forward(log: &mut Option<ProgramLog>) {
    match log {
        Some(log) => log.forward().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
