//! What the tests said in a guest, and the table of all kernels.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::console;
use super::machine::{End, Run};

/// What came of the tests on one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub passed: usize,
    pub failed: Vec<String>,
    /// What the failed tests said.
    pub messages: Vec<String>,
    /// How many tests were ignored for each reason.
    pub skipped: BTreeMap<String, usize>,
    /// Why not every test has a result.
    pub broken: Option<String>,
    /// What the kernel complained about: it would have tainted, or stopped, the machine of a user.
    pub complaints: Vec<String>,
}

impl Outcome {
    pub fn of(run: &Run) -> Self {
        let mut outcome = Self::default();
        for line in &run.lines {
            outcome.add(line);
        }
        outcome.messages = messages(&run.lines);
        outcome.complaints = console::complaints(&text(&run.console));
        outcome.broken = match run.end {
            End::Finished(_) => outcome.incomplete(&run.lines, run.end),
            End::Died => Some(format!("the kernel died: {}", last_words(&run.console))),
            End::Hung => Some(format!("the guest hung: {}", last_words(&run.console))),
        };
        outcome
    }

    pub fn is_good(&self) -> bool {
        let has_failed = !self.failed.is_empty() || self.broken.is_some() || !self.complaints.is_empty();
        !has_failed && self.passed > 0
    }

    /// Takes a line such as `test deaths::a_core_dump ... ignored (needs Python)`.
    fn add(&mut self, line: &str) {
        let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        else {
            return;
        };
        match result {
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push(name.trim_end().to_owned()),
            _ => {
                let reason = result
                    .strip_prefix("ignored (")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .unwrap_or(result);
                *self.skipped.entry(reason.to_owned()).or_default() += 1;
            }
        }
    }

    /// Tells when the program's own count of its tests is not what was seen here.
    fn incomplete(&self, lines: &[String], end: End) -> Option<String> {
        let counted: usize = lines.iter().find_map(|line| {
            let count = line.strip_prefix("running ")?.split(' ').next()?;
            count.parse().ok()
        })?;
        let seen = self.passed + self.failed.len() + self.skipped.values().sum::<usize>();
        (seen != counted).then(|| format!("{seen} of {counted} tests have a result ({end:?})"))
    }
}

/// What stands between `failures:` and the list of the names, which has the same title.
fn messages(lines: &[String]) -> Vec<String> {
    let is_title = |line: &&String| *line == "failures:";
    let rest = lines.iter().skip_while(|line| !is_title(line)).skip(1);
    rest.take_while(|line| !is_title(line)).cloned().collect()
}

/// The kernel's messages.
fn text(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of the kernel's messages: the file is gone with the machine that ran the matrix.
fn last_words(console: &Path) -> String {
    const LINES: usize = 40;
    let text = text(console);
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
    format!("{} ends with\n{last}", console.display())
}

/// One line of the table.
pub struct Row {
    pub series: String,
    pub release: String,
    /// Fields of the kernel's BTF: how many were found, of how many.
    pub fields: (usize, usize),
    pub seconds: u64,
    pub outcome: Outcome,
}

/// How many complaints of a kernel are shown.
const COMPLAINTS: usize = 3;

/// The table, then why what was skipped was skipped, and at the end, where it is looked for first, what failed.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<7} {:<28} {:>7} {:>5} {:>5} {:>7} {:>6}\n",
        "KERNEL", "RELEASE", "FIELDS", "PASS", "FAIL", "SKIPPED", "TIME"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<7} {:<28} {:>7} {:>5} {:>5} {:>7} {:>4} s{}",
            row.series,
            row.release,
            format!("{}/{}", row.fields.0, row.fields.1),
            row.outcome.passed,
            row.outcome.failed.len(),
            row.outcome.skipped.values().sum::<usize>(),
            row.seconds,
            if row.outcome.is_good() { "" } else { "  FAILED" },
        );
    }
    for row in rows {
        let Row { series, outcome, .. } = row;
        for (reason, count) in &outcome.skipped {
            let _ = writeln!(text, "{series}: {count} skipped: {reason}");
        }
    }
    for row in rows {
        let Row { series, outcome, .. } = row;
        for line in &outcome.messages {
            let _ = writeln!(text, "{series}: {line}");
        }
    }
    for row in rows {
        let Row { series, outcome, .. } = row;
        for complaint in outcome.complaints.iter().take(COMPLAINTS) {
            let _ = writeln!(text, "{series}: the kernel complained:\n{complaint}");
        }
        if outcome.complaints.len() > COMPLAINTS {
            let more = outcome.complaints.len() - COMPLAINTS;
            let _ = writeln!(text, "{series}: {more} more complaints of the kernel");
        }
    }
    for row in rows {
        let Row { series, outcome, .. } = row;
        if let Some(broken) = &outcome.broken {
            let _ = writeln!(text, "{series}: {broken}");
        }
        for name in &outcome.failed {
            let _ = writeln!(text, "{series}: FAILED {name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn run(lines: &[&str], end: End) -> Run {
        Run {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            end,
            took: Duration::ZERO,
            console: PathBuf::from("console.log"),
        }
    }

    #[test]
    fn results_are_counted() {
        let lines = [
            "running 4 tests",
            "test a::b   ... ok",
            "test a::c   ... FAILED",
            "test a::d   ... ignored (needs Python 3.11 or later)",
            "test a::e   ... ignored (needs Python 3.11 or later)",
            "failures:",
            "---- a::c ----",
            "panicked",
            "failures:",
            "    a::c",
            "test result: FAILED. 1 passed; 1 failed; 2 ignored",
        ];
        let outcome = Outcome::of(&run(&lines, End::Finished(101)));
        assert_eq!((outcome.passed, outcome.broken.as_deref()), (1, None));
        assert_eq!(outcome.failed, ["a::c"]);
        assert_eq!(outcome.messages, ["---- a::c ----", "panicked"]);
        assert_eq!(outcome.skipped["needs Python 3.11 or later"], 2);
        assert!(!outcome.is_good());
    }

    #[test]
    fn a_kernel_that_dies_is_no_success() {
        let lines = ["running 2 tests", "test a::b ... ok"];
        assert!(!Outcome::of(&run(&lines, End::Died)).is_good());
        assert!(!Outcome::of(&run(&lines, End::Hung)).is_good());
        let cut = Outcome::of(&run(&lines, End::Finished(0)));
        assert_eq!(
            cut.broken.as_deref(),
            Some("1 of 2 tests have a result (Finished(0))")
        );
        assert!(!Outcome::of(&run(&[], End::Finished(0))).is_good());
    }

    #[test]
    fn a_kernel_that_dies_has_last_words() {
        let mut run = run(&[], End::Died);
        run.console = std::env::temp_dir().join(format!("console-{}", std::process::id()));
        fs::write(&run.console, format!("{}Kernel panic\n", "line\n".repeat(50))).expect("written");
        let broken = Outcome::of(&run).broken.expect("it is broken");
        fs::remove_file(&run.console).expect("removed");
        assert!(broken.ends_with("line\nKernel panic"), "{broken}");
        assert_eq!(broken.matches("line\n").count(), 39);
    }

    #[test]
    fn a_kernel_that_complains_is_no_success() {
        let mut run = run(&["running 1 test", "test a::b ... ok"], End::Finished(0));
        run.console = std::env::temp_dir().join(format!("complaints-{}", std::process::id()));
        let warning =
            "[    2.9] WARNING: CPU: 1 PID: 129 at kernel/bpf/verifier.c:10493 bpf_check+0x2f92/0x3470";
        fs::write(&run.console, format!("{warning}\n").repeat(5)).expect("written");
        let mut outcome = Outcome::of(&run);
        fs::remove_file(&run.console).expect("removed");
        assert_eq!((outcome.passed, outcome.complaints.len()), (1, 1));
        assert!(!outcome.is_good());
        outcome.complaints = vec![warning.to_owned(); 5];
        let text = table(&[Row {
            series: "5.10".to_owned(),
            release: "5.10.0-32-cloud-amd64".to_owned(),
            fields: (78, 82),
            seconds: 9,
            outcome,
        }]);
        assert!(text.contains("9 s  FAILED\n"), "{text}");
        assert_eq!(text.matches(warning).count(), 3);
        assert!(
            text.ends_with("5.10: 2 more complaints of the kernel\n"),
            "{text}"
        );
    }

    #[test]
    fn the_table_names_what_failed() {
        let outcome = Outcome::of(&run(
            &["running 1 test", "test a::c ... FAILED"],
            End::Finished(101),
        ));
        let text = table(&[Row {
            series: "6.1".to_owned(),
            release: "6.1.0-50-cloud-amd64".to_owned(),
            fields: (57, 58),
            seconds: 9,
            outcome,
        }]);
        assert!(
            text.contains("6.1     6.1.0-50-cloud-amd64           57/58     0     1       0    9 s  FAILED")
        );
        assert!(text.ends_with("6.1: FAILED a::c\n"));
    }
}
