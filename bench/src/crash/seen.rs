//! What a tool saw of a crash, and what the kernel saw of the tool.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::victims::ADDRESSES;
use crate::accounting::Work;
use crate::children::Process;
use crate::process::Memory;
use crate::tools::{self, Tool};

/// What was seen of it.
#[derive(Default)]
pub struct Seen {
    /// The state program, while the sockets were opened and while they were closed.
    pub opening: Work,
    pub closing: Work,
    /// The programs at exit.
    pub walk: Work,
    /// From the last close to the last byte of the last report.
    pub answer: Option<Duration>,
    /// CPU time of the tool from the crash to then.
    pub cpu: Duration,
    /// When the tool was attached, with the peak of its start.
    pub rest: Option<Memory>,
    /// After the reports, with the peak since it was attached.
    pub after: Option<Memory>,
    /// Sockets in the reports.
    pub reported: usize,
    pub unknown: usize,
    pub time_waits: usize,
    /// Lines of a peer about sockets of the victims.
    pub printed: usize,
    pub told_lost: u64,
    /// Bytes that the maps of the tool take in the kernel.
    pub maps: u64,
    pub ss_before: Option<Duration>,
    pub ss_after: Option<Duration>,
}

/// A report as far as it is checked.
#[derive(Deserialize)]
struct Report {
    sockets: Vec<IgnoredAny>,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    time_wait: usize,
    unknown: usize,
}

impl Seen {
    /// What the tool wrote, which has ended.
    pub fn read_output(&mut self, tool: Tool, process: &Process) -> Result<()> {
        process.output.look(|written| {
            let victims = |line: &[u8]| {
                line.windows(ADDRESSES.len())
                    .any(|bytes| bytes == ADDRESSES.as_bytes())
            };
            if tool.prints_changes() {
                let lines = written.lines().filter(|(line, _)| victims(line));
                for (line, _) in lines {
                    self.printed += 1;
                    // tcpstates prints the new state as a word, the one-liner as a number.
                    let text = String::from_utf8_lossy(line);
                    self.time_waits +=
                        usize::from(text.contains("TIME_WAIT") || text.trim_end().ends_with(" 6"));
                }
                self.told_lost = tools::told_lost(written) + process.errors.look(tools::told_lost);
            }
            if tool == Tool::SockleakText {
                let text = written.text();
                self.reported = text.lines().find_map(sockets_told).unwrap_or(0);
            }
            if tool == Tool::Sockleak {
                for (line, _) in written
                    .lines()
                    .filter(|(line, _)| line.starts_with(br#"{"type":"report""#))
                {
                    let report: Report = serde_json::from_slice(line).context("a report that is no JSON")?;
                    self.reported += report.sockets.len();
                    self.unknown += report.summary.unknown;
                    self.time_waits += report.summary.time_wait;
                }
            }
            Ok(())
        })
    }
}

/// The number in the line of a text report that begins with it, which may have separators.
fn sockets_told(line: &str) -> Option<usize> {
    let (number, _) = line.split_once(" open when it died")?;
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reports_tell_their_number() {
        assert_eq!(
            sockets_told("18,001 sockets open when it died: 1 closed"),
            Some(18_001)
        );
        assert_eq!(sockets_told("1 socket open when it died"), Some(1));
        assert_eq!(sockets_told("  COUNT  LADDR"), None);
    }
}
