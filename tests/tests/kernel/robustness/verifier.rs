//! What the programs cost the verifier of the running kernel, beside the committed table.

use std::collections::BTreeMap;
use std::fs;

use libtest_mimic::Trial;
use sockleak_tests::fdinfo::value;
use sockleak_tests::limit::wait_until;
use sockleak_tests::tracer::Tracer;
use sockleak_tests::verifier::{Column, MEASURED, Table, UNKNOWN};
use sockleak_tests::victim::Victim;

use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    sandboxed(&[Need::KnownVerifier], named![no_program_has_grown])
}

/// The table, and the column of the running kernel.
pub fn column() -> Option<(Table, String)> {
    let table = Table::parse(include_str!("../../../../sockleak-kernel/bpf/verifier.txt"))
        .expect("the table can be read");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is there");
    let series = table.series(&release).map(str::to_owned);
    series.map(|series| (table, series))
}

/// Loaded in this order, after all others.
const ITERATORS: [&str; 2] = ["tcp_port_owners", "port_files"];

fn no_program_has_grown() {
    let (table, series) = column().expect("the kernel has a column");
    let victim = Victim::start();
    let tracer = Tracer::attach(victim.pid(), &[]);
    let mut measured = None;
    wait_until("the iterators", || {
        measured = measure(tracer.pid());
        measured.is_some()
    });
    let measured = measured.expect("it was waited for");
    for (program, figure) in &measured {
        let figure = figure.map_or(UNKNOWN.to_owned(), |figure| figure.to_string());
        // `cargo xtask verifier` makes the table of these lines.
        println!("{MEASURED}{series} {program} {figure}");
    }
    let refused = table.refuse(&series, &measured);
    assert!(
        refused.is_empty(),
        "what the verifier of {series} follows is not what sockleak-kernel/bpf/verifier.txt allows:\n  {}\n\
         look why; if it has to be so, write a new table: cargo xtask verifier --kernel {series}",
        refused.join("\n  ")
    );
}

/// The figures of every program of sockleak, once all are loaded.
fn measure(sockleak: u32) -> Option<Column> {
    let mut tracepoints = BTreeMap::new();
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{sockleak}/fdinfo")).expect("sockleak runs") {
        // It may be closed by now.
        let text = entry
            .and_then(|entry| fs::read_to_string(entry.path()))
            .unwrap_or_default();
        let Some(id) = value(&text, "prog_id").and_then(|id| id.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(tracepoint) = value(&text, "tp_name") {
            tracepoints.insert(id, tracepoint.to_owned());
        } else {
            let figure = value(&text, "verified_insns").and_then(|figure| figure.parse().ok());
            programs.insert(id, figure);
        }
    }
    // Ids grow, so that the copy of a program comes after it, and the iterators come last.
    let mut iterators = ITERATORS.into_iter();
    let mut column = Column::new();
    for (id, figure) in programs {
        let mut name = match tracepoints.get(&id) {
            Some(tracepoint) => tracepoint.clone(),
            None => iterators.next()?.to_owned(),
        };
        if column.contains_key(&name) {
            name.push_str("_2");
        }
        column.insert(name, figure);
    }
    iterators.next().is_none().then_some(column)
}
