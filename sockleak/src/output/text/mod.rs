//! Text for people.

mod advice;
mod ephemeral;
mod free;
mod groups;
mod port;
mod report;
mod restart;
mod style;
mod table;
pub(super) mod words;

use std::io::{self, Write};

use jiff::Timestamp;
use sockleak_core::event::Event;
use sockleak_core::leftover::Freed;
use sockleak_core::observed::{
    Death, Loss, Process, ProcessChange, ProcessEvent, SocketTransition, Watching,
};
use sockleak_core::port::{PortReport, Reuse};
use sockleak_core::verdict::{Leftover, Report};

pub use self::style::Style;
use self::words::{clock, count, plural};
use super::{
    Answer, Console, LiveLine, Notice, Removals, Render, Status, escape, out_of_sight_line, watch_line,
};
use crate::sinks::Sink;

/// Reports on one writer, everything else on the other.
#[derive(Debug)]
pub struct Text<W, S> {
    data: W,
    status: LiveLine<S>,
    style: Style,
    /// A report was printed, and the next one is set apart from it.
    printed: bool,
}

impl<W: Write, S: Write> Text<W, S> {
    /// Writes reports to `data`, the live line and what is only good to know to `status`.
    pub const fn new(data: W, status: LiveLine<S>, style: Style) -> Self {
        Self {
            data,
            status,
            style,
            printed: false,
        }
    }

    fn say_verbosely(&mut self, time: Timestamp, text: &str) -> io::Result<()> {
        if !self.style.verbose {
            return Ok(());
        }
        let line = format!("{} {text}", clock(time, &self.style.zone));
        self.status.say(&line)
    }

    fn watch(&mut self, watching: &Watching) -> io::Result<()> {
        self.status.say(&watch_line(watching))
    }

    fn process(&mut self, event: &ProcessEvent) -> io::Result<()> {
        let who = format!("{} (pid {})", escape(&event.comm), event.pid);
        let text = match event.change {
            ProcessChange::Forked { child } => format!("{who} forked pid {child}"),
            ProcessChange::Executed => format!("pid {} is now {}", event.pid, escape(&event.comm)),
            ProcessChange::Ended => return Ok(()),
        };
        self.say_verbosely(event.time, &text)
    }

    fn transition(&mut self, event: &SocketTransition) -> io::Result<()> {
        let remote = event
            .remote
            .map_or_else(String::new, |remote| format!(" to {remote}"));
        let text = format!(
            "{} (pid {}) {}{remote}: {} to {}",
            escape(&event.comm),
            event.pid,
            event.local,
            event.from.name(),
            event.to.name(),
        );
        self.say_verbosely(event.time, &text)
    }

    fn death(&mut self, process: &Process, death: &Death) -> io::Result<()> {
        let who = format!("{} (pid {})", escape(&process.comm), process.pid);
        self.say_verbosely(death.time, &format!("{who} died: {}", words::death(death)))
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        self.status.clear()?;
        if std::mem::replace(&mut self.printed, true) {
            writeln!(self.data)?;
        }
        for line in report::report(report, &self.style) {
            writeln!(self.data, "{line}")?;
        }
        self.data.flush()
    }

    fn port(&mut self, report: &PortReport) -> io::Result<()> {
        for line in port::port(report, &self.style) {
            writeln!(self.data, "{line}")?;
        }
        self.data.flush()
    }

    fn waited(&mut self, report: &PortReport, reuse: Reuse) -> io::Result<()> {
        for line in port::still_in_use(report, reuse, &self.style) {
            self.status.say(&line)?;
        }
        Ok(())
    }

    fn moved(&mut self, time: Timestamp, moved: &[Leftover]) -> io::Result<()> {
        for leftover in moved {
            let end = match leftover.freedom.at() {
                Some(at) => format!("free at {}", clock(at, &self.style.zone)),
                None => "no end can be told".to_owned(),
            };
            self.say_verbosely(time, &format!("{}, {end}", in_words(leftover)))?;
        }
        Ok(())
    }

    fn freed(&mut self, freed: &[Freed]) -> io::Result<()> {
        let (Some(first), Some(last)) = (freed.first(), freed.last()) else {
            return Ok(());
        };
        let time = clock(last.time, &self.style.zone);
        let what = if freed.len() == 1 {
            format!("{} is free", in_words(&first.leftover))
        } else {
            format!("{} leftovers are free", count(freed.len() as u64))
        };
        self.status.clear()?;
        writeln!(self.data, "{time} {what}")?;
        self.data.flush()
    }

    fn removals(&mut self, removals: &Removals) -> io::Result<()> {
        for line in free::lines(removals, &self.style) {
            writeln!(self.data, "{line}")?;
        }
        self.data.flush()
    }

    fn lost(&mut self, loss: &Loss) -> io::Result<()> {
        if loss.processes > 0 {
            let processes = plural(loss.processes, "process", "processes");
            self.status.say(&format!(
                "sockleak: {processes} could not be followed and will not be reported"
            ))?;
        }
        // What became unknown by a lost event is said in the report that it is missing in.
        let events = plural(loss.events, "kernel event", "kernel events");
        self.say_verbosely(loss.time, &format!("missed {events}"))
    }

    fn out_of_sight(&mut self, netns: u32, leftovers: usize, why: &str) -> io::Result<()> {
        self.status.say(&out_of_sight_line(netns, leftovers, why))
    }
}

impl<W: Write, S: Write> Sink for Text<W, S> {
    fn name(&self) -> &'static str {
        "text"
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
            } => self.out_of_sight(*netns, *leftovers, why),
            Event::Lost(loss) => self.lost(loss),
            // The reports of its deaths say it all.
            Event::Incident(_) => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.status.clear()?;
        self.data.flush()
    }
}

impl<W: Write, S: Write> Render for Text<W, S> {
    fn answer(&mut self, answer: &Answer<'_>) -> io::Result<()> {
        match answer {
            Answer::Port(report) => self.port(report),
            Answer::Waited(report, reuse) => self.waited(report, *reuse),
            Answer::Removals(removals) => self.removals(removals),
        }
    }
}

impl<W: Write, S: Write> Console for Text<W, S> {
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

/// A leftover by its state and its addresses.
fn in_words(leftover: &Leftover) -> String {
    let remote = leftover
        .remote
        .map_or_else(String::new, |remote| format!(" to {remote}"));
    format!("{} {}{remote}", leftover.state.name(), leftover.local)
}

#[cfg(test)]
mod tests;
