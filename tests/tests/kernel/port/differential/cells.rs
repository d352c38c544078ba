//! How many verdicts there were of each kind.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use sockleak_tests::situation::{Answers, Binding, Word};

/// What the port had: the state of its sockets if that is one, as the kernel's own tables call it.
pub const STATES: [&str; 20] = [
    "nothing",
    "several",
    "BOUND",
    "LISTEN",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "CLOSE_WAIT",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "FIN_WAIT2 mini",
    "CLOSING",
    "LAST_ACK",
    "TIME_WAIT",
    "RESET",
    "DISCONNECTED",
    "MPTCP BOUND",
    "MPTCP LISTEN",
    "MPTCP ESTABLISHED",
    "REPAIR",
];
/// Where the answer does not depend on the sockets.
const ANY: &str = "any";
const FAMILIES: [&str; 3] = ["4", "6", "mapped"];
const FLAGS: [&str; 4] = ["-", "addr", "port", "both"];

pub struct Cells {
    counts: BTreeMap<Cell, u64>,
    /// A bucket of this kernel keeps the mark that all of its sockets were bound with SO_REUSEADDR. Since there are two tables
    /// of buckets, the first bind() finds its own in the second, and sets no mark (`inet_csk_update_fastreuse`,
    /// net/ipv4/inet_connection_sock.c).
    marks_reuseaddr: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    state: &'static str,
    answer: &'static str,
    family: &'static str,
    flags: &'static str,
}

impl Cells {
    pub fn new(marks_reuseaddr: bool) -> Self {
        Self {
            counts: BTreeMap::new(),
            marks_reuseaddr,
        }
    }

    /// Counts a verdict.
    pub fn add(&mut self, state: &'static str, asked: &Binding, answers: Answers) {
        let answer = answer(answers);
        let decided_before = matches!(answer, "not_available" | "invalid" | "permission");
        let cell = Cell {
            state: if decided_before { ANY } else { state },
            answer,
            family: match asked.address {
                IpAddr::V4(_) => FAMILIES[0],
                IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => FAMILIES[2],
                IpAddr::V6(_) => FAMILIES[1],
            },
            flags: FLAGS[usize::from(asked.reuseaddr) + 2 * usize::from(asked.reuseport)],
        };
        *self.counts.entry(cell).or_default() += 1;
    }

    /// Those that had no verdict although they can have some.
    pub fn empty(&self) -> Vec<String> {
        let is_empty = |cell: &Cell| !self.counts.contains_key(cell) && self.impossible(cell).is_none();
        let told = |cell: Cell| format!("{} {} {} {}", cell.state, cell.answer, cell.family, cell.flags);
        every().into_iter().filter(is_empty).map(told).collect()
    }

    /// All of them as a table.
    pub fn table(&self) -> String {
        let mut text = format!("{:<18} {:<14}", "SOCKETS", "ANSWER");
        for family in FAMILIES {
            for flags in FLAGS {
                let _ = write!(text, " {:>8}", format!("{family} {flags}").replace("mapped", "m"));
            }
        }
        let rows: BTreeSet<(usize, &str, &str)> = every()
            .iter()
            .chain(self.counts.keys())
            .map(|cell| {
                let place = STATES.iter().position(|state| *state == cell.state);
                (place.unwrap_or(STATES.len()), cell.state, cell.answer)
            })
            .collect();
        for (_, state, answer) in rows {
            let _ = write!(text, "\n{state:<18} {answer:<14}");
            for family in FAMILIES {
                for flags in FLAGS {
                    let cell = Cell {
                        state,
                        answer,
                        family,
                        flags,
                    };
                    let count = match self.counts.get(&cell) {
                        Some(count) => count.to_string(),
                        None if self.impossible(&cell).is_some() => "x".to_owned(),
                        None => "0".to_owned(),
                    };
                    let _ = write!(text, " {count:>8}");
                }
            }
        }
        text
    }

    /// Why there can be no verdict in that cell.
    fn impossible(&self, cell: &Cell) -> Option<&'static str> {
        match (cell.state, cell.answer) {
            ("nothing", "in_use" | "listen refused") => Some("nothing is in the way"),
            (_, "listen refused") if !self.marks_reuseaddr => {
                Some("nothing lets bind() pass that does not let listen() pass")
            }
            (_, "listen refused") if matches!(cell.flags, "-" | "port") => {
                Some("only the mark of SO_REUSEADDR lets bind() pass and not listen()")
            }
            ("LISTEN" | "SYN_RECV" | "MPTCP LISTEN", "listen refused") => {
                Some("listen() takes the mark of SO_REUSEADDR from the bucket")
            }
            (_, "invalid") if cell.family == "4" => Some("IPv4 has no scopes and no IPV6_V6ONLY"),
            _ => None,
        }
    }
}

fn answer(answers: Answers) -> &'static str {
    match (answers.bind, answers.listen) {
        (Word::Ok, Word::Ok) => "ok",
        (Word::Ok, Word::InUse) => "listen refused",
        (Word::InUse, _) => "in_use",
        (Word::NotAvailable, _) => "not_available",
        (Word::Invalid, _) => "invalid",
        (Word::Permission, _) => "permission",
        _ => "other",
    }
}

fn every() -> Vec<Cell> {
    let of_states = STATES
        .iter()
        .flat_map(|state| ["ok", "in_use", "listen refused"].map(|answer| (*state, answer)));
    let before = ["not_available", "invalid", "permission"].map(|answer| (ANY, answer));
    let cell = |(state, answer)| {
        FAMILIES.into_iter().flat_map(move |family| {
            FLAGS.into_iter().map(move |flags| Cell {
                state,
                answer,
                family,
                flags,
            })
        })
    };
    of_states.chain(before).flat_map(cell).collect()
}
