//! Who is told what becomes of a trace.

mod recorder;

use std::io;

use sockleak_core::event::Event;
use sockleak_core::observed::Observation;

pub use recorder::Recorder;

/// A reader of a trace.
pub trait Sink {
    /// What it is called in a message.
    fn name(&self) -> &'static str;

    /// Takes an observation, before it is examined. Only recorders need them.
    ///
    /// # Errors
    /// When it cannot be written.
    fn observe(&mut self, _: &Observation) -> io::Result<()> {
        Ok(())
    }

    /// Takes an event. It takes no longer than a write.
    ///
    /// # Errors
    /// When it cannot be written.
    fn take(&mut self, event: &Event) -> io::Result<()>;

    /// The trace is over.
    ///
    /// # Errors
    /// When what is left cannot be written.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All readers of a trace. The first one's error ends the trace; the others never do.
pub struct Sinks<'a, F: ?Sized> {
    first: &'a mut F,
    others: Vec<Guarded>,
}

/// A sink whose errors end nothing.
struct Guarded {
    sink: Box<dyn Sink>,
    /// What it could not take.
    failed: u64,
}

/// A sink, and how much it could not take.
type Missed = (&'static str, u64);

/// A sink that could not take something, for the first time.
#[derive(Debug)]
pub struct Failure {
    pub sink: &'static str,
    pub error: io::Error,
}

impl<'a, F: Sink + ?Sized> Sinks<'a, F> {
    pub const fn new(first: &'a mut F) -> Self {
        Self {
            first,
            others: Vec::new(),
        }
    }

    /// Adds another reader.
    pub fn add(&mut self, sink: Box<dyn Sink>) {
        self.others.push(Guarded { sink, failed: 0 });
    }

    /// The first reader.
    pub const fn first(&mut self) -> &mut F {
        self.first
    }

    /// Hands on an observation.
    #[must_use]
    pub fn observe(&mut self, observation: &Observation) -> Vec<Failure> {
        self.each(|sink| sink.observe(observation))
    }

    /// Hands on an event, to the first one last: whatever its error ends, the others have the event.
    ///
    /// # Errors
    /// That of the first one.
    pub fn take(&mut self, event: &Event) -> io::Result<Vec<Failure>> {
        let failures = self.each(|sink| sink.take(event));
        self.first.take(event)?;
        Ok(failures)
    }

    /// The trace is over. Those of the others that could not take more than one thing, and how many.
    ///
    /// # Errors
    /// That of the first one.
    pub fn finish(&mut self) -> io::Result<(Vec<Failure>, Vec<Missed>)> {
        let failures = self.each(|sink| sink.finish());
        self.first.finish()?;
        let failed = self.others.iter().filter(|other| other.failed > 1);
        let missed = failed.map(|other| (other.sink.name(), other.failed)).collect();
        Ok((failures, missed))
    }

    fn each(&mut self, mut call: impl FnMut(&mut dyn Sink) -> io::Result<()>) -> Vec<Failure> {
        let mut failures = Vec::new();
        for other in &mut self.others {
            if let Err(error) = call(other.sink.as_mut()) {
                other.failed += 1;
                if other.failed == 1 {
                    let sink = other.sink.name();
                    failures.push(Failure { sink, error });
                }
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests;
