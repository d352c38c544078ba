//! The output that the command line asks for.

use std::io::{self, BufWriter, Stderr, Stdout, Write, stderr, stdout};

use anstream::ColorChoice;
use jiff::tz::TimeZone;

use super::{Color, Format, Json, LiveLine, Output, Style, Text, uses_color};

/// How the output goes together with the terminal.
#[derive(Clone, Debug)]
pub struct Options {
    pub format: Format,
    pub color: Color,
    /// Leave the single sockets out of reports.
    pub summary: bool,
    pub verbose: bool,
    /// Columns of the terminal that stdout is; `None` if it is none.
    pub stdout_width: Option<usize>,
    /// Columns of the terminal that stderr is; `None` if it is none.
    pub stderr_width: Option<usize>,
    /// Where the times are told that a person reads; the system's zone without.
    pub zone: Option<TimeZone>,
}

/// Data to stdout, status to stderr.
#[must_use]
pub fn open(options: Options) -> Box<dyn Output> {
    let status = LiveLine::new(Told(stderr()), options.stderr_width);
    if options.format == Format::Json {
        return Box::new(Json::new(Data(stdout()), status, options.summary));
    }
    let choice = match options.color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    };
    let style = Style {
        width: options.stdout_width,
        color: uses_color(choice, &stdout()),
        zone: options.zone.unwrap_or_else(TimeZone::system),
        verbose: options.verbose,
    };
    Box::new(Text::new(BufWriter::new(Data(stdout())), status, style))
}

/// Stderr. What nobody can be told is no error of the trace.
struct Told(Stderr);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// Stdout, whose errors say that they are its own. Their kind stays, since it tells a closed pipe.
struct Data(Stdout);

impl Write for Data {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_stdout)
    }
}

fn of_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to stdout: {error}"))
}
