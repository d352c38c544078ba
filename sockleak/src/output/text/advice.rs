//! Advice as text: what to do and why; with -v, for whom it is called what, what it costs, and what is in vain.

use sockleak_core::advice::{Advice, Fact};

use super::style::{Ink, Style};
use super::words::{block, clock, count, duration, plural, wrap};
use crate::output::advice::words;

/// The lines of all pieces.
pub(super) fn advice(pieces: &[Advice], style: &Style) -> Vec<String> {
    pieces.iter().flat_map(|piece| one(piece, style)).collect()
}

fn one(piece: &Advice, style: &Style) -> Vec<String> {
    const INDENT: usize = "advice: ".len();
    let words = words(piece.id);
    let facts: Vec<String> = piece
        .evidence
        .iter()
        .map(|(name, fact)| evidence(name, fact, style))
        .collect();
    let text = format!("advice: {} ({})", words.brief, facts.join(", "));
    let mut lines = vec![wrap(&text, style.columns(), INDENT)];
    if style.verbose {
        let runtimes = words
            .runtimes
            .iter()
            .map(|(name, how)| format!("{}: {how}", runtime(name)));
        let vain = words
            .will_not_help
            .iter()
            .map(|vain| format!("does not help: {vain}"));
        let costs = format!("costs: {}", words.cost);
        let details = std::iter::once(words.text.to_owned())
            .chain(runtimes)
            .chain([costs])
            .chain(vain);
        lines.extend(details.map(|detail| {
            let detail = block(&detail, style.columns(), INDENT);
            style.paint(Ink::Aside, &detail)
        }));
    }
    lines
}

/// A fact in words.
fn evidence(name: &str, fact: &Fact, style: &Style) -> String {
    let name = name.replace('_', " ");
    match fact {
        Fact::Count(number) => plural(*number, name.strip_suffix('s').unwrap_or(&name), &name),
        Fact::Ports(ports) => some_ports(ports),
        Fact::Lasted(span) => {
            let name = name.strip_suffix(" ms").unwrap_or(&name);
            let span = (*span).try_into().map(duration).unwrap_or_default();
            format!("{name}: {span}")
        }
        Fact::FreeAt(Some(at)) => format!("the last one free at {}", clock(*at, &style.zone)),
        Fact::FreeAt(None) => "no end can be told".to_owned(),
    }
}

fn some_ports(ports: &[u16]) -> String {
    const NAMED: usize = 3;
    let named: Vec<String> = ports.iter().take(NAMED).map(u16::to_string).collect();
    let word = if ports.len() == 1 { "port" } else { "ports" };
    let more = match ports.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {} more", count(more as u64)),
    };
    format!("{word} {}{more}", named.join(" "))
}

/// The name of a language as people write it.
fn runtime(name: &str) -> &str {
    match name {
        "c" => "C",
        "python" => "Python",
        "go" => "Go",
        "node" => "Node",
        "java" => "Java",
        "rust" => "Rust",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;
    use sockleak_core::advice::AdviceId;
    use sockleak_core::testing::{at, sample};

    use super::*;

    fn style(verbose: bool) -> Style {
        Style {
            width: Some(60),
            color: false,
            zone: TimeZone::UTC,
            verbose,
        }
    }

    #[test]
    fn facts_are_words() {
        let cases = [
            ("listeners", Fact::Count(1), "1 listener"),
            ("unread_bytes", Fact::Count(4096), "4,096 unread bytes"),
            ("ports", Fact::Ports(vec![80]), "port 80"),
            (
                "ports",
                Fact::Ports(vec![80, 81, 82, 83, 84]),
                "ports 80 81 82 and 2 more",
            ),
            (
                "core_dump_ms",
                Fact::Lasted(Duration::from_millis(4200)),
                "core dump: 4.2 s",
            ),
            (
                "free_at",
                Fact::FreeAt(Some(at(0))),
                "the last one free at 08:53:20",
            ),
            ("free_at", Fact::FreeAt(None), "no end can be told"),
        ];
        for (name, fact, words) in cases {
            assert_eq!(evidence(name, &fact, &style(false)), words);
        }
    }

    /// Every piece with -v, each under its name. Whoever changes words sees here how they are shown.
    #[test]
    fn every_piece() {
        let mut text = String::new();
        for id in AdviceId::ALL {
            let piece = Advice {
                id,
                evidence: vec![("sockets", Fact::Count(2))],
            };
            let lines = advice(&[piece], &style(true)).join("\n");
            text.push_str(&format!("[{}]\n{lines}\n", id.name()));
        }
        assert!(
            text == include_str!("advice.txt"),
            "advice.txt has not this:\n{text}"
        );
    }

    #[test]
    fn details_are_for_the_verbose() {
        let report = sample();
        let lines = advice(&report.advice, &style(false));
        assert_eq!(lines.len(), report.advice.len());
        assert!(lines.iter().all(|line| line.lines().count() <= 3), "{lines:#?}");
        let verbose = advice(&report.advice, &style(true));
        for word in ["        Python: ", "        costs: ", "        does not help: "] {
            assert!(verbose.iter().any(|line| line.starts_with(word)), "{verbose:#?}");
            assert!(!lines.iter().any(|line| line.contains(word)), "{lines:#?}");
        }
        let words = verbose.iter().flat_map(|lines| lines.lines());
        for line in words.filter(|line| line.trim_start().contains(' ')) {
            assert!(line.chars().count() <= 60, "{line}");
        }
    }
}
