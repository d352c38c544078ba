//! The table of what each program costs a verifier: `sockleak-kernel/bpf/verifier.txt`.
//!
//! Two programs share this file: the integration tests compare a kernel with the table, and `cargo xtask verifier` writes it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// Where the table is in the repository.
pub const PATH: &str = "sockleak-kernel/bpf/verifier.txt";
/// The column of the stack, which is the same on every kernel.
pub const STACK: &str = "stack";
/// What begins a line of a test that measured a figure: `verifier: COLUMN PROGRAM FIGURE`.
pub const MEASURED: &str = "verifier: ";
/// What a kernel does not tell.
pub const UNKNOWN: &str = "unknown";
/// A program that is not loaded on that kernel.
const NOT_LOADED: &str = "-";
const PROGRAM: &str = "program";
/// In percent: what a figure may grow by without a new table.
const MARGIN: u32 = 15;

/// Figures of one column, by program; `None` where the kernel does not tell.
pub type Column = BTreeMap<String, Option<u32>>;

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The lines before it.
    comment: String,
    columns: Vec<(String, Column)>,
}

impl Table {
    /// Reads what [`fmt::Display`] wrote. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (comments, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
        let mut lines = lines.into_iter().map(|line| line.split_whitespace());
        let names = lines.next().into_iter().flatten().skip(1);
        let mut columns: Vec<_> = names.map(|name| (name.to_owned(), Column::new())).collect();
        for mut cells in lines {
            let program = cells.next().unwrap_or_default();
            for (_, column) in &mut columns {
                let cell = cells
                    .next()
                    .ok_or(format!("{PATH} has too few figures of {program}"))?;
                let figure = match cell {
                    NOT_LOADED => continue,
                    UNKNOWN => None,
                    number => {
                        let number = number.parse();
                        Some(number.map_err(|_| format!("{PATH} says {cell} of {program}"))?)
                    }
                };
                column.insert(program.to_owned(), figure);
            }
        }
        let comment = comments.into_iter().flat_map(|line| [line, "\n"]).collect();
        Ok(Self { comment, columns })
    }

    /// The column of the running kernel, by its release.
    pub fn series(&self, release: &str) -> Option<&str> {
        let is_of = |series: &&str| {
            let mut parts = release.split(['.', '-']);
            series.split('.').all(|part| parts.next() == Some(part))
        };
        self.columns.iter().map(|(name, _)| name.as_str()).find(is_of)
    }

    /// What of a measurement the table does not allow, a line for each program. One without a figure may have grown, too.
    pub fn refuse(&self, name: &str, measured: &Column) -> Vec<String> {
        let nothing = Column::new();
        let column = self.columns.iter().find(|(known, _)| known == name);
        let column = column.map_or(&nothing, |(_, column)| column);
        let new = measured.keys().filter(|program| !column.contains_key(*program));
        let new = new.map(|program| format!("{program} is new"));
        let refuse = |(program, allowed): (&String, &Option<u32>)| {
            let Some(figure) = measured.get(program) else {
                return Some(format!("{program} was not measured"));
            };
            let allowed = (*allowed)?;
            let Some(figure) = *figure else {
                return Some(format!("{program} has no figure any more, and had {allowed}"));
            };
            let has_grown = u64::from(figure) * 100 > u64::from(allowed) * u64::from(100 + MARGIN);
            let percent = u64::from(figure.saturating_sub(allowed)) * 100 / u64::from(allowed.max(1));
            has_grown.then(|| format!("{program} has grown from {allowed} to {figure}, by {percent} %"))
        };
        new.chain(column.iter().filter_map(refuse)).collect()
    }

    /// Puts a measurement into the place of a column, or behind the others.
    pub fn set(&mut self, name: &str, measured: Column) {
        match self.columns.iter_mut().find(|(known, _)| known == name) {
            Some((_, column)) => *column = measured,
            None => self.columns.push((name.to_owned(), measured)),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut programs: Vec<&String> = self
            .columns
            .iter()
            .flat_map(|(_, column)| column.keys())
            .collect();
        programs.sort_unstable();
        programs.dedup();
        f.write_str(&self.comment)?;
        let mut line = format!("{PROGRAM:<24}");
        for (name, _) in &self.columns {
            write!(line, "{name:>9}")?;
        }
        writeln!(f, "{line}")?;
        for program in programs {
            let mut line = format!("{program:<24}");
            for (_, column) in &self.columns {
                let cell = match column.get(program) {
                    None => NOT_LOADED.to_owned(),
                    Some(None) => UNKNOWN.to_owned(),
                    Some(Some(figure)) => figure.to_string(),
                };
                write!(line, "{cell:>9}")?;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// The figures in what tests printed, by column.
pub fn measured(text: &str) -> BTreeMap<String, Column> {
    let mut found = BTreeMap::<String, Column>::new();
    for line in text.lines() {
        let Some((_, figure)) = line.split_once(MEASURED) else {
            continue;
        };
        let words: Vec<_> = figure.split_whitespace().collect();
        if let [column, program, figure] = words[..] {
            let column = found.entry(column.to_owned()).or_default();
            column.insert(program.to_owned(), figure.parse().ok());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Why.\n\
        program                     stack     5.10      6.1        7\n\
        exit                          288  unknown     1000     2000\n\
        exit_2                        288        -        -     2000\n";

    fn column(program: &str, figure: Option<u32>) -> Column {
        [(program.to_owned(), figure)].into()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let table = Table::parse(TEXT).unwrap();
        assert_eq!(table.to_string(), TEXT);
        assert!(Table::parse("program 6.1\nexit\n").is_err());
        assert!(Table::parse("program 6.1\nexit many\n").is_err());
    }

    #[test]
    fn a_release_belongs_to_one_series() {
        let table = Table::parse(TEXT).unwrap();
        assert_eq!(table.series("6.1.0-50-cloud-amd64"), Some("6.1"));
        assert_eq!(table.series("6.12.117+deb12-cloud-amd64"), None);
        assert_eq!(table.series("7.2.13"), Some("7"));
        assert_eq!(table.series("7.2-rc1"), Some("7"));
    }

    #[test]
    fn growth_is_refused() {
        let table = Table::parse(TEXT).unwrap();
        let refuse = |name, figure| table.refuse(name, &column("exit", figure));
        assert_eq!(refuse("6.1", Some(1150)), [""; 0]);
        assert_eq!(refuse("6.1", Some(10)), [""; 0]);
        assert_eq!(refuse("5.10", Some(9000)), [""; 0]);
        assert_eq!(refuse("5.10", None), [""; 0]);
        assert_eq!(
            refuse("6.1", Some(1151)),
            ["exit has grown from 1000 to 1151, by 15 %"]
        );
    }

    #[test]
    fn a_measurement_of_other_programs_is_refused() {
        let table = Table::parse(TEXT).unwrap();
        assert_eq!(
            table.refuse("6.1", &column("exit_2", Some(1))),
            ["exit_2 is new", "exit was not measured"]
        );
        assert_eq!(
            table.refuse("7", &Column::new()),
            ["exit was not measured", "exit_2 was not measured"]
        );
        assert_eq!(table.refuse("5.10", &Column::new()), ["exit was not measured"]);
        assert_eq!(
            table.refuse("6.1", &column("exit", None)),
            ["exit has no figure any more, and had 1000"]
        );
    }

    #[test]
    fn a_column_is_replaced_by_what_was_measured() {
        let mut table = Table::parse(TEXT).unwrap();
        let text = "7: verifier: 6.1 exit 1001\n7: test x ... ok\nverifier: 6.1 exit_2 unknown\n";
        for (name, column) in measured(text) {
            table.set(&name, column);
        }
        let expected = TEXT
            .replace("     1000 ", "     1001 ")
            .replace("  -        - ", "  -  unknown ");
        assert_eq!(table.to_string(), expected);
    }
}
