//! What is said on stderr about the trace itself.

use super::escape;
use super::text::words::{count, plural};

/// What a replay and `free --report` say of such a file.
pub(super) const RECORDING_CUT: &str = "the recording was cut: what came later is not in it";

/// Something about the trace that whoever started it has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The targets are dead and reported; these processes, by PID and `comm`, are not.
    StillFollowing(Vec<(u32, String)>),
    /// The reader of stdout has gone, which ends the trace.
    Unread,
    /// The trace ended with this error, while COMMAND was running.
    Failed(String),
    /// A recording has no end mark, or one that says that something is missing.
    RecordingCut,
    /// A reader beside the first one could not take something, and why.
    SinkFailed(&'static str, String),
    /// So many things in all are missing there.
    SinkMissed(&'static str, u64),
    /// COMMAND, by PID and as it was called, runs although the trace has ended.
    Command((u32, String), GoesOn),
}

/// Why COMMAND goes on without a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoesOn {
    /// `--duration` is over.
    TimeIsUp,
    /// The reader of stdout has gone.
    Unread,
    /// The trace failed.
    Untraced,
    /// A second signal ended sockleak.
    Abandoned,
}

/// How many processes are named.
const NAMED: usize = 3;

impl Notice {
    /// The line that says it.
    #[must_use]
    pub fn line(&self) -> String {
        let text = match self {
            Self::StillFollowing(left) => still_following(left),
            Self::Unread => "nothing reads stdout any more; the trace ends".to_owned(),
            Self::Failed(error) => error.lines().map(escape).collect::<Vec<_>>().join("\n"),
            Self::RecordingCut => RECORDING_CUT.to_owned(),
            Self::SinkFailed(sink, why) => {
                format!("the {sink} is not complete: {}", escape(why))
            }
            Self::SinkMissed(sink, missed) => {
                let entries = plural(*missed, "entry is", "entries are");
                format!("{entries} missing in the {sink}")
            }
            Self::Command(command, why) => {
                let name = named(command);
                match why {
                    GoesOn::TimeIsUp => format!("time is up; no more reports, waiting for {name} to exit"),
                    GoesOn::Unread => {
                        format!("nothing reads stdout any more; no more reports, waiting for {name} to exit")
                    }
                    GoesOn::Untraced => format!("{name} is no longer traced; waiting for it to exit"),
                    GoesOn::Abandoned => {
                        format!("second signal: {name} keeps running and is no longer traced")
                    }
                }
            }
        };
        format!("sockleak: {text}")
    }
}

fn named((pid, name): &(u32, String)) -> String {
    format!("{} (pid {pid})", escape(name))
}

fn still_following(left: &[(u32, String)]) -> String {
    let mut names: Vec<String> = left.iter().take(NAMED).map(named).collect();
    if left.len() > NAMED {
        names.push(format!("{} more", count((left.len() - NAMED) as u64)));
    }
    format!(
        "still following {}: {}. SIGINT (Ctrl-C) ends the trace; next time --once ends it with the first report, and --no-follow \
         leaves children out",
        plural(left.len() as u64, "child process", "child processes"),
        names.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_whom_it_still_follows() {
        let worker = |pid| (pid, "wor\x1bker".to_owned());
        let line = Notice::StillFollowing(vec![worker(7)]).line();
        assert!(
            line.starts_with(
                "sockleak: still following 1 child process: wor\\x1bker (pid 7). SIGINT (Ctrl-C) ends"
            ),
            "{line}"
        );
        let line = Notice::StillFollowing((1..=5).map(worker).collect()).line();
        assert!(
            line.contains("5 child processes: ") && line.contains("(pid 3), 2 more."),
            "{line}"
        );
    }

    #[test]
    fn says_what_becomes_of_the_command() {
        let command = || (7, "./server".to_owned());
        for (why, words) in [
            (
                GoesOn::TimeIsUp,
                "time is up; no more reports, waiting for ./server (pid 7) to exit",
            ),
            (
                GoesOn::Unread,
                "nothing reads stdout any more; no more reports, waiting for ./server (pid 7) to exit",
            ),
            (
                GoesOn::Untraced,
                "./server (pid 7) is no longer traced; waiting for it to exit",
            ),
            (
                GoesOn::Abandoned,
                "second signal: ./server (pid 7) keeps running and is no longer traced",
            ),
        ] {
            assert_eq!(
                Notice::Command(command(), why).line(),
                format!("sockleak: {words}")
            );
        }
        assert!(Notice::Unread.line().ends_with("the trace ends"));
    }
}
