//! Crashes of different sizes, seen by different tools.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sockleak_kernel::accounting;

use super::in_turn;
use crate::crash::{self, Plan, Seen, Shape};
use crate::plan::Bench;
use crate::samples::{Sample, Samples, Scenario, metric};
use crate::tools::Tool;

/// The least time that sockleak gives the kernel to settle (`--settle`).
pub const SETTLE: Duration = Duration::from_millis(50);

/// A descriptor that every table has room for.
const LOW: u64 = 10;

/// The same crash for every tool, traced from the opening of the sockets on.
pub fn compared(bench: &Bench, round: u32, samples: &mut Samples) -> Result<()> {
    let plan = Plan {
        processes: 1,
        shape: Shape::Pairs(bench.sizes.pairs),
        traced_from_birth: true,
        ss: false,
    };
    for tool in in_turn(bench, &[Tool::Sockleak, Tool::Tcpstates, Tool::Bpftrace], round) {
        let seen = observe(bench, tool, plan, samples)?;
        let values = values(tool, plan, &seen);
        keep(samples, Scenario::Crash, tool, plan, round, values);
    }
    Ok(())
}

/// The walk over a dense table, over one that is all but empty, and over a small one.
pub fn walks(bench: &Bench, round: u32, samples: &mut Samples) -> Result<()> {
    const TOOL: Tool = Tool::Sockleak;
    let plan = |shape| Plan {
        processes: 1,
        shape,
        traced_from_birth: false,
        ss: false,
    };
    let dense = plan(Shape::Pairs(bench.sizes.pairs));
    let mut all = values(TOOL, dense, &observe(bench, TOOL, dense, samples)?);
    let mut of_one_at = |fd| -> Result<f64> {
        let seen = observe(bench, TOOL, plan(Shape::High(fd)), samples)?;
        Ok(seen.walk.run_time_ns as f64)
    };
    let (small, sparse) = (of_one_at(LOW)?, of_one_at(bench.sizes.high)?);
    let empty_slots = (bench.sizes.high - LOW) as f64;
    all.insert(metric::SMALL_WALK_NS, small);
    all.insert(metric::SPARSE_WALK_NS, sparse);
    all.insert(metric::EMPTY_SLOT_NS, (sparse - small) / empty_slots);
    keep(samples, Scenario::Walk, TOOL, dense, round, all);
    Ok(())
}

/// How long the reports take, beside what `ss` takes for the same sockets.
pub fn answers(bench: &Bench, round: u32, samples: &mut Samples) -> Result<()> {
    let plan = Plan {
        processes: 1,
        shape: Shape::Pairs(bench.sizes.pairs),
        traced_from_birth: false,
        ss: true,
    };
    for tool in in_turn(bench, &[Tool::Sockleak, Tool::SockleakText], round) {
        let seen = observe(bench, tool, plan, samples)?;
        keep(samples, Scenario::Answer, tool, plan, round, answer(&seen));
    }
    Ok(())
}

/// The same crash with more and more sockets.
pub fn curve(bench: &Bench, round: u32, samples: &mut Samples) -> Result<()> {
    for (processes, pairs) in &bench.sizes.curve {
        let plan = Plan {
            processes: *processes,
            shape: Shape::Pairs(*pairs),
            traced_from_birth: false,
            ss: false,
        };
        let tool = Tool::Sockleak;
        let seen = observe(bench, tool, plan, samples)?;
        let values = values(tool, plan, &seen);
        keep(samples, Scenario::Curve, tool, plan, round, values);
    }
    Ok(())
}

/// Makes the crash, and notes when something of it is missing.
fn observe(bench: &Bench, tool: Tool, plan: Plan, samples: &mut Samples) -> Result<Seen> {
    let _accounting = accounting::enable().context("the kernel's accounting")?;
    let seen = crash::run(bench, tool, plan)?;
    let complete = tool.prints_changes() || seen.reported == plan.sockets();
    if !complete {
        samples.fail(format!(
            "{tool} found {} sockets of {} in {} processes",
            seen.reported,
            plan.sockets(),
            plan.processes
        ));
    }
    if tool.prints_changes() && seen.printed == 0 {
        samples.fail(format!("{tool} printed no change of state of the crash"));
    }
    Ok(seen)
}

fn keep(
    samples: &mut Samples,
    scenario: Scenario,
    tool: Tool,
    plan: Plan,
    round: u32,
    values: BTreeMap<&'static str, f64>,
) {
    samples.push(Sample {
        scenario,
        tool,
        sockets: plan.sockets(),
        round,
        values,
    });
}

/// Everything that a crash tells of this tool.
fn values(tool: Tool, plan: Plan, seen: &Seen) -> BTreeMap<&'static str, f64> {
    let sockets = plan.sockets() as f64;
    let mut values = answer(seen);
    if seen.opening.runs > 0 {
        values.insert(metric::OPENING_NS, seen.opening.per_run());
    }
    if seen.closing.runs > 0 {
        values.insert(metric::DYING_NS, seen.closing.per_run());
        let misses = seen.opening.misses + seen.closing.misses;
        values.insert(metric::MISSES, misses as f64);
        values.insert(metric::CHANGES, (seen.opening.runs + seen.closing.runs) as f64);
    }
    if tool.prints_changes() {
        let expected = plan.changes() as f64;
        values.insert(metric::LOST_PART, 1.0 - seen.printed as f64 / expected);
        values.insert(metric::TOLD_LOST, seen.told_lost as f64);
        values.insert(metric::TIME_WAITS, seen.time_waits as f64);
    } else {
        values.insert(metric::REPORTED, seen.reported as f64);
        if sockets > 0.0 {
            values.insert(metric::WALK_NS, seen.walk.run_time_ns as f64 / sockets);
        }
    }
    if tool == Tool::Sockleak {
        values.insert(metric::UNKNOWN, seen.unknown as f64);
        values.insert(metric::TIME_WAITS, seen.time_waits as f64);
        values.insert(metric::MAPS_KIB, seen.maps as f64 / 1024.0);
        if sockets > 0.0 {
            values.insert(metric::CPU_US, seen.cpu.as_secs_f64() * 1e6 / sockets);
        }
    }
    values.extend(
        seen.rest
            .map(|memory| (metric::START_PEAK_KIB, memory.peak as f64)),
    );
    values.extend(seen.rest.map(|memory| (metric::REST_KIB, memory.now as f64)));
    values.extend(seen.after.map(|memory| (metric::PEAK_KIB, memory.peak as f64)));
    values
}

fn answer(seen: &Seen) -> BTreeMap<&'static str, f64> {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut values = BTreeMap::new();
    values.extend(
        seen.answer
            .map(|answer| (metric::ANSWER_MS, milliseconds(answer))),
    );
    values.extend(seen.ss_before.map(|ss| (metric::SS_MS, milliseconds(ss))));
    values.extend(seen.ss_after.map(|ss| (metric::SS_AFTER_MS, milliseconds(ss))));
    if let (Some(answer), Some(ss)) = (seen.answer, seen.ss_before) {
        let work = answer.saturating_sub(SETTLE).as_secs_f64();
        values.insert(metric::ANSWER_PER_SS, work / ss.as_secs_f64());
    }
    values
}
