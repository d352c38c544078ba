//! How the cost of a socket grows with their number.

use std::fmt::Write as _;

use super::format::number;
use super::targets::{bytes_per_socket, sizes};
use crate::samples::{Samples, Scenario, Spread, metric};
use crate::tools::Tool;

const COLUMNS: [&str; 7] = [
    "SOCKETS",
    "WALK ns",
    "CHANGE ns",
    "CPU us",
    "ANSWER ms",
    "us/SOCKET",
    "BYTES/SOCKET",
];

/// Medians of each size: for each socket but for the answer, whose share of a socket has the settling taken off.
pub fn render(samples: &Samples) -> String {
    let sizes = sizes(samples);
    if sizes.is_empty() {
        return String::new();
    }
    let mut text = String::from("The same for every number of sockets\n");
    row(&mut text, &COLUMNS.map(str::to_owned));
    for sockets in sizes {
        let of = |metric| {
            let values = samples.of(Scenario::Curve, Tool::Sockleak, Some(sockets), metric);
            Spread::of(values.into_values()).map(|spread| spread.median)
        };
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let answer = of(metric::ANSWER_MS);
        let settle = crate::scenarios::SETTLE.as_secs_f64() * 1e3;
        let share = answer.filter(|_| sockets > 0);
        let share = share.map(|answer| (answer - settle).max(0.0) * 1e3 / sockets as f64);
        let bytes = Spread::of(bytes_per_socket(samples, sockets)).map(|spread| spread.median);
        row(
            &mut text,
            &[
                number(sockets as f64),
                shown(of(metric::WALK_NS)),
                shown(of(metric::DYING_NS).filter(|_| sockets > 0)),
                shown(of(metric::CPU_US)),
                shown(answer),
                shown(share),
                shown(bytes.filter(|_| sockets > 0)),
            ],
        );
    }
    text
}

fn row(text: &mut String, cells: &[String; 7]) {
    let [sockets, walk, change, cpu, answer, share, bytes] = cells;
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{sockets:>9}{walk:>10}{change:>11}{cpu:>9}{answer:>11}{share:>11}{bytes:>14}"
    );
}
