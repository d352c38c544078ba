//! Everything that is printed: text for people, JSON Lines for programs.
//!
//! Data goes to the one writer that an [`Output`] was made with, status to the other. Errors of the writers are
//! passed up as they are: what a closed pipe means is not decided here.

mod advice;
mod blind;
mod checks;
mod escape;
mod json;
mod live;
mod notice;
mod open;
mod removals;
mod text;

use std::io;

use clap::ValueEnum;
use sockleak_core::observed::Watching;
use sockleak_core::port::{PortReport, Reuse};

use self::text::words::plural;
use crate::sinks::Sink;

pub use blind::sentences as blind_sentences;
pub use checks::{Checks, FieldRow, RequirementRow};
pub use escape::escape;
pub use json::Json;
#[cfg(test)]
pub use json::schema;
pub use live::{LiveLine, Status};
pub use notice::{GoesOn, Notice};
pub use open::{Options, open};
pub use removals::{Note, Removals, Subject};
pub use text::{Style, Text};

/// The form of what is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// When to use colours.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// What a verb that asks once has found.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// Who has a port.
    Port(&'a PortReport),
    /// The last look of a wait for a port, for sockets with these options.
    Waited(&'a PortReport, Reuse),
    /// What was destroyed, or would be.
    Removals(&'a Removals),
}

/// Prints answers.
pub trait Render {
    /// Prints one.
    ///
    /// # Errors
    /// That of the writer.
    fn answer(&mut self, answer: &Answer<'_>) -> io::Result<()>;
}

/// Talks to whoever looks at stderr.
pub trait Console {
    /// Says what becomes of the trace.
    ///
    /// # Errors
    /// That of the writer.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;
    /// Shows where the trace is, on a terminal only.
    ///
    /// # Errors
    /// That of the writer.
    fn status(&mut self, status: &Status) -> io::Result<()>;
    /// Takes away what is only shown while the verb runs.
    ///
    /// # Errors
    /// That of the writer.
    fn clear(&mut self) -> io::Result<()>;
}

/// What the command line opens: one form, for traces and for answers.
pub trait Output: Sink + Render + Console {}

impl<T: Sink + Render + Console> Output for T {}

/// Whether colours may be used on a stream: as asked, else only on a terminal and if neither NO_COLOR nor TERM
/// speaks against it.
#[must_use]
pub fn uses_color(choice: anstream::ColorChoice, stream: &impl anstream::stream::RawStream) -> bool {
    match choice {
        anstream::ColorChoice::Auto => anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never,
        anstream::ColorChoice::Never => false,
        anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => true,
    }
}

/// The line that says on stderr, whatever the format, what is watched.
fn watch_line(watching: &Watching) -> String {
    let targets = watching.processes.iter().filter(|process| process.target);
    let who: Vec<String> = targets
        .map(|process| format!("{} (pid {})", escape(&process.comm), process.pid))
        .collect();
    let sockets = watching.sockets.map_or_else(
        || "open sockets could not be counted (see `sockleak check`)".to_owned(),
        |open| {
            let listeners = plural(open.listeners, "listener", "listeners");
            format!(
                "{listeners}, {}",
                plural(open.connections, "connection", "connections")
            )
        },
    );
    format!(
        "watching {}: {sockets}; kernel {}, {}",
        who.join(", "),
        escape(&watching.kernel),
        plural(watching.hooks.len() as u64, "hook", "hooks"),
    )
}

/// The line that says on stderr that leftovers may not be looked at any more.
fn out_of_sight_line(netns: u32, leftovers: usize, why: &str) -> String {
    format!(
        "sockleak: when {} in net:[{netns}] are free is not known any more: {}",
        plural(leftovers as u64, "leftover", "leftovers"),
        escape(why)
    )
}
