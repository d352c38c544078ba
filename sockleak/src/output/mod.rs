//! Everything that is printed: text for people, JSON Lines for programs.
//!
//! Data goes to the one writer that an [`Output`] was made with, status to the other. Errors of the writers are
//! passed up as they are: what a closed pipe means is not decided here.

mod blind;
mod checks;
mod escape;
mod freeing;
mod json;
mod live;
mod notice;
mod open;
mod text;

use std::io;

use clap::ValueEnum;
use jiff::Timestamp;

use self::text::words::plural;

pub use blind::sentences as blind_sentences;
pub use checks::{Checks, FieldRow, RequirementRow};
pub use escape::escape;
pub use freeing::{Freeing, Subject};
pub use json::Json;
pub use live::{LiveLine, Status};
pub use notice::{GoesOn, Notice};
pub use open::{Options, open};
use sockleak_core::leftover::Freed;
use sockleak_core::observed::{Death, Process, State};
use sockleak_core::port::{PortReport, Reuse};
use sockleak_core::verdict::{Follower, Report};
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

/// What the tracer watches, once every hook is attached.
#[derive(Clone, Debug)]
pub struct Watch {
    pub time: Timestamp,
    /// PID and `comm` of each target.
    pub targets: Vec<(u32, String)>,
    /// How many listeners and other TCP sockets they have open now; `None` where those may not be looked at.
    pub sockets: Option<(u64, u64)>,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// The hooks that are attached.
    pub hooks: Vec<String>,
}

/// A watched process forked or became another program.
#[derive(Clone, Debug)]
pub struct ProcessEvent {
    pub time: Timestamp,
    pub pid: u32,
    /// After an exec, the new one.
    pub comm: String,
    pub what: ProcessChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// It has a child, which is followed too.
    Fork {
        child: u32,
    },
    Exec,
}

/// A watched process changed the state of one of its sockets itself.
#[derive(Clone, Debug)]
pub struct TransitionEvent {
    pub time: Timestamp,
    pub pid: u32,
    pub comm: String,
    pub local: std::net::SocketAddr,
    pub remote: Option<std::net::SocketAddr>,
    pub from: State,
    pub to: State,
}

/// What was lost since the last time.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    pub time: Timestamp,
    /// Events that the programs could not send, or were skipped for.
    pub events: u64,
    /// Processes that are not followed. They are counted among the events, too.
    pub processes: u64,
}

/// Something that says what was found.
///
/// Every method fails with the error of the writer.
pub trait Output {
    /// Everything is attached.
    fn watch(&mut self, watch: &Watch) -> io::Result<()>;
    /// A followed process forked or executed.
    fn process(&mut self, event: &ProcessEvent) -> io::Result<()>;
    /// A process changed a socket's state itself.
    fn transition(&mut self, event: &TransitionEvent) -> io::Result<()>;
    /// A process died; its report follows.
    fn death(&mut self, process: &Process, death: &Death) -> io::Result<()>;
    /// What the death left behind.
    fn report(&mut self, report: &Report) -> io::Result<()>;
    /// Who has a port.
    fn port(&mut self, report: &PortReport) -> io::Result<()>;
    /// A wait for a port ended with this look, for sockets with these options.
    fn waited(&mut self, report: &PortReport, reuse: Reuse) -> io::Result<()>;
    /// What one look found in another state, or to be free at another moment, than was told before.
    fn moved(&mut self, time: Timestamp, moved: &[Follower]) -> io::Result<()>;
    /// What one look found to be free since the look before.
    fn freed(&mut self, freed: &[Freed]) -> io::Result<()>;
    /// What was destroyed, or would be.
    fn freeing(&mut self, freeing: &Freeing) -> io::Result<()>;
    /// Events were lost since the last time.
    fn lost(&mut self, loss: &Loss) -> io::Result<()>;
    /// What becomes of the trace, for whoever looks at stderr.
    fn notice(&mut self, notice: &Notice) -> io::Result<()>;
    /// Where the tracer is; shown on a terminal only.
    fn status(&mut self, status: &Status) -> io::Result<()>;
    /// Ends what is only shown while the tracer runs.
    fn finish(&mut self) -> io::Result<()>;
}

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
fn watch_line(watch: &Watch) -> String {
    let who: Vec<String> = watch
        .targets
        .iter()
        .map(|(pid, comm)| format!("{} (pid {pid})", escape(comm)))
        .collect();
    let sockets = watch.sockets.map_or_else(
        || "open sockets could not be counted (see `sockleak check`)".to_owned(),
        |(listeners, connections)| {
            let listeners = plural(listeners, "listener", "listeners");
            format!(
                "{listeners}, {}",
                plural(connections, "connection", "connections")
            )
        },
    );
    format!(
        "watching {}: {sockets}; kernel {}, {}",
        who.join(", "),
        escape(&watch.kernel),
        plural(watch.hooks.len() as u64, "hook", "hooks"),
    )
}
