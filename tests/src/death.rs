//! How a death in a report is held against what the parent of the dead process was told.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde_json::{Value, json};

use crate::report::{Report, moment};

/// Cause, number and core dump are those of the status that wait() gave; the kernel overwrites a signal with
/// no second one, so nothing was interrupted.
#[track_caller]
pub fn agrees_with_wait(report: &Report, status: ExitStatus) {
    let death = &report["death"];
    let told = ["cause", "signal", "core_dumped", "exit_code", "dump_interrupted"].map(|key| &death[key]);
    let waited = match status.signal() {
        Some(signal) => json!(["signal", signal, status.core_dumped(), null, null]),
        None => json!(["exit", null, false, status.code(), null]),
    };
    assert_eq!(json!(told), waited, "{status}, but {death}");
    if !status.core_dumped() {
        assert_eq!(death["core_dump_ms"], Value::Null, "{death}");
    }
}

/// The reports in the order of the deaths.
#[must_use]
pub fn in_order(reports: HashMap<u32, Report>) -> Vec<Report> {
    let mut reports: Vec<_> = reports.into_values().collect();
    reports.sort_by_key(|report| moment(&report["death"]["time"]));
    reports
}

/// No process sent the signal, if there was one, and the kernel was not out of memory.
#[track_caller]
pub fn nobody_sent_it(report: &Report) {
    let death = &report["death"];
    assert_eq!(
        (&death["sent_by"], &death["oom"]),
        (&Value::Null, &false.into()),
        "{death}"
    );
}
