//! The tables for people: ratios first, then what they are made of. 80 columns.

mod absolute;
mod curve;
mod format;
mod targets;

use std::fmt::Write as _;

use crate::machine::Machine;
use crate::samples::Samples;

/// Everything that was measured.
pub fn render(machine: &Machine, rounds: u32, samples: &Samples) -> String {
    let mut text = String::new();
    let host = if machine.virtual_machine { ", virtual" } else { "" };
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "Linux {}, {} x {}{host}, {} MiB",
        machine.kernel, machine.cpus, machine.cpu, machine.memory_mib
    );
    let versions = [&machine.tcpstates, &machine.bpftrace, &machine.ss]
        .into_iter()
        .flatten();
    let versions: Vec<_> = versions.map(String::as_str).collect();
    let _ = writeln!(text, "{}", versions.join("; "));
    let commit = machine.commit.as_deref().unwrap_or("unknown");
    let _ = writeln!(text, "sockleak {commit}; {}", machine.command);
    let _ = writeln!(
        text,
        "Rounds: {rounds}; load before: {:.2}. Each figure is the median, with the least and the greatest.",
        machine.load
    );
    for section in [
        targets::render(samples),
        absolute::render(samples),
        curve::render(samples),
    ] {
        if !section.is_empty() {
            text.push('\n');
            text.push_str(&section);
        }
    }
    text
}
