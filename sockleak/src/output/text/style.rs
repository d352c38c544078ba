//! How text is shown.

use anstyle::{AnsiColor, Effects};
use jiff::tz::TimeZone;

/// How text is shown.
#[derive(Debug)]
pub struct Style {
    /// Columns of the terminal that the report goes to; `None` where it goes elsewhere, which counts as 80.
    pub width: Option<usize>,
    /// Whether colours may be used there.
    pub color: bool,
    /// The time zone in which times are told.
    pub zone: TimeZone,
    /// Also print forks, execs and each socket that a process closes itself.
    pub verbose: bool,
}

impl Style {
    pub(super) fn columns(&self) -> usize {
        // Below 40 columns no table is readable; the terminal may wrap it then.
        self.width.unwrap_or(80).max(40)
    }

    /// The text in that ink, where colours may be used.
    pub(super) fn paint(&self, ink: Ink, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let style = match ink {
            Ink::Headline => anstyle::Style::new().effects(Effects::BOLD),
            Ink::Leftover => AnsiColor::Yellow.on_default(),
            Ink::Held => AnsiColor::Red.on_default(),
            Ink::Fine => AnsiColor::Green.on_default(),
            Ink::Aside => anstyle::Style::new().effects(Effects::DIMMED),
        };
        format!("{style}{text}{style:#}")
    }
}

/// What a text means, which is what colours are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Headline,
    /// It will be free by itself.
    Leftover,
    /// It will not.
    Held,
    Fine,
    Aside,
}
