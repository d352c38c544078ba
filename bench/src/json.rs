//! `--json FILE`: every sample, with the facts of the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;
use crate::samples::{Sample, Samples};

#[derive(Serialize)]
struct Document<'a> {
    v: u32,
    machine: &'a Machine,
    failures: &'a [String],
    samples: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    scenario: String,
    tool: &'static str,
    sockets: usize,
    round: u32,
    #[serde(flatten)]
    values: &'a BTreeMap<&'static str, f64>,
}

/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, machine: &Machine, samples: &Samples) -> Result<()> {
    let cannot = || format!("{} could not be written", path.display());
    let document = Document {
        v: 1,
        machine,
        failures: samples.failures(),
        samples: samples.all().iter().map(row).collect(),
    };
    let mut file = BufWriter::new(File::create(path).with_context(cannot)?);
    serde_json::to_writer_pretty(&mut file, &document).with_context(cannot)?;
    file.flush().with_context(cannot)
}

fn row(sample: &Sample) -> Row<'_> {
    Row {
        scenario: sample.scenario.to_string(),
        tool: sample.tool.name(),
        sockets: sample.sockets,
        round: sample.round,
        values: &sample.values,
    }
}
