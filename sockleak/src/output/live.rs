//! The one line that a terminal shows while the tracer waits.

use std::io::{self, Write};

use jiff::Timestamp;

use super::text::words::{count, duration, plural};

/// Where the tracer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits for a death.
    Watching {
        processes: u64,
        /// Sockets that they have open; `None` where those may not be looked at.
        sockets: Option<u64>,
    },
    /// It waits for leftovers to be free.
    Draining {
        now: Timestamp,
        /// Leftovers that nobody holds.
        leftovers: u64,
        /// Sockets that a process holds.
        held: u64,
        /// When the last leftover is free that will be free by itself.
        last: Option<Timestamp>,
    },
    /// It waits for a port.
    Waiting {
        now: Timestamp,
        port: u16,
        /// From when on a restart succeeds, at the earliest.
        free_at: Option<Timestamp>,
    },
}

impl Status {
    /// The line, at most `width` characters.
    #[must_use]
    pub fn line(&self, width: usize) -> String {
        let text = match *self {
            Self::Watching { processes, sockets } => {
                let with = sockets.map_or_else(String::new, |sockets| {
                    format!(" with {}", plural(sockets, "socket", "sockets"))
                });
                format!("watching {}{with}", plural(processes, "process", "processes"))
            }
            Self::Draining {
                now,
                leftovers,
                held,
                last,
            } => {
                let mut text = plural(leftovers, "leftover", "leftovers");
                if let Some(left) = last.map(|last| last.duration_since(now)) {
                    if left.is_positive() {
                        text += &format!(", the last one free in {}", duration(left));
                    } else {
                        text += ", the last one free at any moment";
                    }
                }
                if held > 0 {
                    text += &format!("; {} held", count(held));
                }
                text
            }
            Self::Waiting { now, port, free_at } => match free_at.map(|at| at.duration_since(now)) {
                Some(left) if left.is_positive() => {
                    format!("waiting for port {port}: free in {}", duration(left))
                }
                Some(_) => format!("waiting for port {port}: free at any moment"),
                None => format!("waiting for port {port}: no end can be told"),
            },
        };
        text.chars().take(width).collect()
    }
}

/// A writer that can show a line which the next one replaces.
#[derive(Debug)]
pub struct LiveLine<W> {
    writer: W,
    /// Columns of the terminal; `None` if it is none, and then nothing is ever drawn.
    width: Option<usize>,
    drawn: String,
}

/// To the first column, and erase the line.
const ERASE: &str = "\r\x1b[K";

impl<W: Write> LiveLine<W> {
    /// A line on a terminal of `width` columns, or no line at all.
    pub const fn new(writer: W, width: Option<usize>) -> Self {
        Self {
            writer,
            width,
            drawn: String::new(),
        }
    }

    /// Shows where the tracer is; does nothing if that is what is shown.
    pub fn draw(&mut self, status: &Status) -> io::Result<()> {
        let Some(width) = self.width else {
            return Ok(());
        };
        // A character in the last column would make some terminals begin a new line.
        let line = status.line(width.saturating_sub(1));
        if line != self.drawn {
            write!(self.writer, "{ERASE}{line}")?;
            self.writer.flush()?;
            self.drawn = line;
        }
        Ok(())
    }

    /// Takes the line away, before anything else is printed on the same terminal.
    pub fn clear(&mut self) -> io::Result<()> {
        if !self.drawn.is_empty() {
            self.drawn.clear();
            self.writer.write_all(ERASE.as_bytes())?;
            self.writer.flush()?;
        }
        Ok(())
    }

    /// Prints a line that stays.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        self.clear()?;
        writeln!(self.writer, "{line}")?;
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use sockleak_core::testing::at;

    use super::*;

    const WATCHING: Status = Status::Watching {
        processes: 1,
        sockets: Some(1412),
    };

    #[test]
    fn counts_down_to_the_last() {
        assert_eq!(WATCHING.line(80), "watching 1 process with 1,412 sockets");
        let uncounted = Status::Watching {
            processes: 2,
            sockets: None,
        };
        assert_eq!(uncounted.line(80), "watching 2 processes");
        let draining = |last| Status::Draining {
            now: at(0),
            leftovers: 401,
            held: 1,
            last,
        };
        assert_eq!(
            draining(Some(at(47_000))).line(80),
            "401 leftovers, the last one free in 47 s; 1 held"
        );
        assert_eq!(
            draining(Some(at(-1))).line(80),
            "401 leftovers, the last one free at any moment; 1 held"
        );
        assert_eq!(draining(None).line(80), "401 leftovers; 1 held");
        assert_eq!(draining(None).line(7), "401 lef");
    }

    #[test]
    fn a_pipe_gets_no_control_characters() {
        let mut written = Vec::new();
        let mut line = LiveLine::new(&mut written, None);
        line.draw(&WATCHING).unwrap();
        line.say("done").unwrap();
        assert_eq!(written, b"done\n");
    }

    #[test]
    fn a_terminal_shows_one_line_at_a_time() {
        let mut written = Vec::new();
        let mut line = LiveLine::new(&mut written, Some(11));
        line.draw(&WATCHING).unwrap();
        line.draw(&WATCHING).unwrap();
        line.say("done").unwrap();
        line.clear().unwrap();
        assert_eq!(written, b"\r\x1b[Kwatching 1\r\x1b[Kdone\n");
    }
}
