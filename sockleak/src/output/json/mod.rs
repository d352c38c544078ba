//! JSON Lines: one object a line, `"type"` and `"v"` first.

mod advice;
mod ephemeral;
mod free;
mod port;
mod report;
mod restart;
mod view;

use std::io::{self, BufWriter, Write};

use jiff::Timestamp;
use serde::Serialize;
use sockleak_core::event::Event;
use sockleak_core::leftover::Freed;
use sockleak_core::observed::{
    Death, Loss, Process, ProcessChange, ProcessEvent, SocketTransition, State, Watching,
};
use sockleak_core::port::PortReport;
use sockleak_core::verdict::{Follower, FreeRule, Outcome, Report};

use self::free::RemovalView;
use self::port::PortView;
use self::report::ReportView;
use self::view::{DeathView, Time};
use super::{
    Answer, Console, Freeing, LiveLine, Notice, Render, Status, escape, out_of_sight_line, watch_line,
};
use crate::sinks::Sink;

/// The version of the format. Fields and values may be added to it without another number.
const VERSION: u32 = 1;

/// Bytes that are written at a time: as many as a pipe holds.
const BUFFER: usize = 64 << 10;

/// JSON Lines on a writer; every line is flushed.
#[derive(Debug)]
pub struct Json<W: Write, S> {
    writer: BufWriter<W>,
    /// Where people look while a program reads the data.
    status: LiveLine<S>,
    /// Leave the single sockets out of reports.
    summary: bool,
}

impl<W: Write, S: Write> Json<W, S> {
    /// Writes to `writer`; with `summary`, reports have `"sockets":null`.
    pub fn new(writer: W, status: LiveLine<S>, summary: bool) -> Self {
        Self {
            writer: BufWriter::with_capacity(BUFFER, writer),
            status,
            summary,
        }
    }

    /// Streams one object, which is never a string as a whole: a report may have 160,000 sockets.
    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        self.object(object)?;
        self.writer.flush()
    }

    fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        // The conversion keeps the kind of the writer's error, which tells a closed pipe.
        serde_json::to_writer(&mut self.writer, object).map_err(io::Error::from)?;
        self.writer.write_all(b"\n")
    }
}

/// What every line begins with.
#[derive(Serialize)]
struct Line<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    v: u32,
    #[serde(flatten)]
    body: T,
}

fn line<T>(kind: &'static str, body: T) -> Line<T> {
    let v = VERSION;
    Line { kind, v, body }
}

#[derive(Serialize)]
struct WatchView<'a> {
    time: Time,
    pids: Vec<u32>,
    /// `None` where they may not be looked at.
    listeners: Option<u64>,
    connections: Option<u64>,
    kernel: &'a str,
    hooks: &'a [String],
}

#[derive(Serialize)]
struct ProcessEventView<'a> {
    time: Time,
    event: &'static str,
    pid: u32,
    comm: &'a str,
    child: Option<u32>,
}

#[derive(Serialize)]
struct TransitionEventView<'a> {
    time: Time,
    pid: u32,
    comm: &'a str,
    laddr: std::net::IpAddr,
    lport: u16,
    raddr: Option<std::net::IpAddr>,
    rport: Option<u16>,
    from: &'static str,
    to: &'static str,
}

#[derive(Serialize)]
struct DeathEventView<'a> {
    time: Time,
    pid: u32,
    comm: &'a str,
    death: DeathView<'a>,
}

#[derive(Serialize)]
struct MovedView {
    time: Time,
    pid: u32,
    laddr: std::net::IpAddr,
    lport: u16,
    raddr: Option<std::net::IpAddr>,
    rport: Option<u16>,
    outcome: Outcome,
    state: &'static str,
    free_rule: FreeRule,
    free_at: Option<Time>,
    free_at_latest: Option<Time>,
}

#[derive(Serialize)]
struct FreedView {
    pid: u32,
    laddr: std::net::IpAddr,
    lport: u16,
    raddr: Option<std::net::IpAddr>,
    rport: Option<u16>,
    not_before: Time,
    time: Time,
    free_rule: FreeRule,
}

#[derive(Serialize)]
struct LostView {
    time: Time,
    events: u64,
    processes: u64,
}

impl<W: Write, S: Write> Json<W, S> {
    fn watch(&mut self, watching: &Watching) -> io::Result<()> {
        // People are told even when nobody reads the data any more.
        self.status.say(&watch_line(watching))?;
        let targets = watching.processes.iter().filter(|process| process.target);
        self.line(&line(
            "watch",
            WatchView {
                time: Time(watching.time),
                pids: targets.map(|process| process.pid).collect(),
                listeners: watching.sockets.map(|open| open.listeners),
                connections: watching.sockets.map(|open| open.connections),
                kernel: &watching.kernel,
                hooks: &watching.hooks,
            },
        ))
    }

    fn process(&mut self, event: &ProcessEvent) -> io::Result<()> {
        let (name, child) = match event.change {
            ProcessChange::Forked { child } => ("fork", Some(child)),
            ProcessChange::Executed => ("exec", None),
            ProcessChange::Ended => return Ok(()),
        };
        self.line(&line(
            "process",
            ProcessEventView {
                time: Time(event.time),
                event: name,
                pid: event.pid,
                comm: &event.comm,
                child,
            },
        ))
    }

    fn transition(&mut self, event: &SocketTransition) -> io::Result<()> {
        self.line(&line(
            "transition",
            TransitionEventView {
                time: Time(event.time),
                pid: event.pid,
                comm: &event.comm,
                laddr: event.local.ip(),
                lport: event.local.port(),
                raddr: event.remote.map(|remote| remote.ip()),
                rport: event.remote.map(|remote| remote.port()),
                from: State::name(event.from),
                to: State::name(event.to),
            },
        ))
    }

    fn death(&mut self, process: &Process, death: &Death) -> io::Result<()> {
        self.line(&line(
            "death",
            DeathEventView {
                time: Time(death.time),
                pid: process.pid,
                comm: &process.comm,
                death: DeathView::new(death),
            },
        ))
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        let view = ReportView::new(report, self.summary);
        self.line(&view)
    }

    fn port(&mut self, report: &PortReport) -> io::Result<()> {
        self.line(&PortView::new(report))
    }

    fn moved(&mut self, time: Timestamp, moved: &[Follower]) -> io::Result<()> {
        for follower in moved {
            self.object(&line(
                "moved",
                MovedView {
                    time: Time(time),
                    pid: follower.pid,
                    laddr: follower.local.ip(),
                    lport: follower.local.port(),
                    raddr: follower.remote.map(|remote| remote.ip()),
                    rport: follower.remote.map(|remote| remote.port()),
                    outcome: follower.outcome(),
                    state: State::name(follower.state),
                    free_rule: follower.freedom.rule,
                    free_at: follower.freedom.at().map(Time),
                    free_at_latest: follower.freedom.latest().map(Time),
                },
            ))?;
        }
        self.writer.flush()
    }

    fn freed(&mut self, freed: &[Freed]) -> io::Result<()> {
        for freed in freed {
            let follower = &freed.follower;
            self.object(&line(
                "freed",
                FreedView {
                    pid: follower.pid,
                    laddr: follower.local.ip(),
                    lport: follower.local.port(),
                    raddr: follower.remote.map(|remote| remote.ip()),
                    rport: follower.remote.map(|remote| remote.port()),
                    not_before: Time(freed.not_before),
                    time: Time(freed.time),
                    free_rule: follower.freedom.rule,
                },
            ))?;
        }
        self.writer.flush()
    }

    fn freeing(&mut self, freeing: &Freeing) -> io::Result<()> {
        for removal in &freeing.removals {
            self.object(&line("free", RemovalView::new(freeing.time, removal)))?;
        }
        self.writer.flush()?;
        for note in &freeing.notes {
            self.status.say(&escape(note))?;
        }
        Ok(())
    }

    fn lost(&mut self, loss: &Loss) -> io::Result<()> {
        let view = LostView {
            time: Time(loss.time),
            events: loss.events,
            processes: loss.processes,
        };
        self.line(&line("lost", view))
    }
}

impl<W: Write, S: Write> Sink for Json<W, S> {
    fn name(&self) -> &'static str {
        "json"
    }

    fn take(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Watching(watching) => self.watch(watching),
            Event::Process(event) => self.process(event),
            Event::Transition(transition) => self.transition(transition),
            Event::Death(report) => report
                .death
                .as_ref()
                .map_or(Ok(()), |death| self.death(&report.process, death)),
            Event::Report(report) => self.report(report),
            Event::Moved { time, leftovers } => self.moved(*time, leftovers),
            Event::Freed(freed) => self.freed(freed),
            Event::OutOfSight {
                netns,
                leftovers,
                why,
            } => self.status.say(&out_of_sight_line(*netns, *leftovers, why)),
            Event::Lost(loss) => self.lost(loss),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.status.clear()?;
        self.writer.flush()
    }
}

impl<W: Write, S: Write> Render for Json<W, S> {
    fn answer(&mut self, answer: &Answer<'_>) -> io::Result<()> {
        match answer {
            Answer::Port(report) | Answer::Waited(report, _) => self.port(report),
            Answer::Freeing(freeing) => self.freeing(freeing),
        }
    }
}

impl<W: Write, S: Write> Console for Json<W, S> {
    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        self.status.say(&notice.line())
    }

    fn status(&mut self, status: &Status) -> io::Result<()> {
        self.status.draw(status)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.status.clear()
    }
}

#[cfg(test)]
mod tests;
