//! JSON Lines: one object a line, `"type"` and `"v"` first.

mod advice;
mod blind;
mod ephemeral;
mod events;
mod free;
mod incident;
mod port;
mod record;
mod report;
mod restart;
#[cfg(test)]
pub mod schema;
mod view;
mod words;

use std::io::{self, BufWriter, Write};

use jiff::Timestamp;
use sockleak_core::event::Event;
use sockleak_core::leftover::Freed;
use sockleak_core::observed::{Loss, ProcessEvent, SocketTransition, Watching};
use sockleak_core::port::PortReport;
use sockleak_core::verdict::{Leftover, Report};

use self::events::{
    DeathEventView, FreedView, LostView, MovedView, ProcessEventView, TransitionEventView, WatchView,
};
use self::free::RemovalView;
use self::incident::IncidentView;
use self::port::PortView;
use self::report::ReportView;
use super::{
    Answer, Console, LiveLine, Notice, Removals, Render, Status, escape, out_of_sight_line, watch_line,
};
use crate::sinks::Sink;

pub use self::record::{Kind, Record, write};

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

    fn line(&mut self, object: &impl Record) -> io::Result<()> {
        write(&mut self.writer, object)?;
        self.writer.flush()
    }
}

impl<W: Write, S: Write> Json<W, S> {
    fn watch(&mut self, watching: &Watching) -> io::Result<()> {
        // People are told even when nobody reads the data any more.
        self.status.say(&watch_line(watching))?;
        self.line(&WatchView::new(watching))
    }

    fn process(&mut self, event: &ProcessEvent) -> io::Result<()> {
        ProcessEventView::new(event).map_or(Ok(()), |view| self.line(&view))
    }

    fn transition(&mut self, event: &SocketTransition) -> io::Result<()> {
        self.line(&TransitionEventView::new(event))
    }

    fn death(&mut self, report: &Report) -> io::Result<()> {
        DeathEventView::new(report).map_or(Ok(()), |view| self.line(&view))
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        let view = ReportView::new(report, self.summary);
        self.line(&view)
    }

    fn port(&mut self, report: &PortReport) -> io::Result<()> {
        self.line(&PortView::new(report))
    }

    fn moved(&mut self, time: Timestamp, moved: &[Leftover]) -> io::Result<()> {
        for leftover in moved {
            write(&mut self.writer, &MovedView::new(time, leftover))?;
        }
        self.writer.flush()
    }

    fn freed(&mut self, freed: &[Freed]) -> io::Result<()> {
        for freed in freed {
            write(&mut self.writer, &FreedView::new(freed))?;
        }
        self.writer.flush()
    }

    fn removals(&mut self, removals: &Removals) -> io::Result<()> {
        for removal in &removals.removals {
            write(&mut self.writer, &RemovalView::new(removals.time, removal))?;
        }
        self.writer.flush()?;
        for note in &removals.notes {
            self.status.say(&escape(&note.to_string()))?;
        }
        Ok(())
    }

    fn lost(&mut self, loss: &Loss) -> io::Result<()> {
        self.line(&LostView::new(loss))
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
            Event::Death(report) => self.death(report),
            Event::Report(report) => self.report(report),
            Event::Moved { time, leftovers } => self.moved(*time, leftovers),
            Event::Freed(freed) => self.freed(freed),
            Event::OutOfSight {
                netns,
                leftovers,
                why,
            } => self.status.say(&out_of_sight_line(*netns, *leftovers, why)),
            Event::Lost(loss) => self.lost(loss),
            Event::Incident(incident) => self.line(&IncidentView::new(incident)),
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
            Answer::Removals(removals) => self.removals(removals),
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
