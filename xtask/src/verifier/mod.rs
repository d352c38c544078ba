//! `cargo xtask verifier`: writes the table of what each program costs the verifier of each kernel.

mod stack;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Error, Result, bail};

use crate::bpf::object;
use crate::verifier_table::{self, Column, PATH, STACK, Table};
use crate::{matrix, shell};

/// The integration test that measures.
const TEST: &str = "verifier::";

#[derive(clap::Args)]
pub struct Options {
    /// Measure on these kernels only, and leave the figures of the others as they are.
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_value = "all")]
    kernel: Vec<String>,
}

/// # Errors
/// When a kernel cannot be started, or says nothing.
pub fn run(options: &Options) -> Result<()> {
    let path = shell::repository().join(PATH);
    let mut table = read()?;
    let depths = stack::depths(&object::committed()?.1)?;
    replace(&mut table, STACK, depths);
    let logs = matrix::logs(&options.kernel)?;
    for (_, log) in &logs {
        // What a run before has left is no measurement of this one.
        let _ = fs::remove_file(log);
    }
    // The test compares with the old table, so it may fail; whether it measured is seen below.
    let tested = matrix::run(&options.kernel, &[OsStr::new(TEST)], None);
    for (series, log) in logs {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let Some(column) = verifier_table::measured(&said).remove(&series) else {
            tested?;
            bail!("Linux {series} measured nothing: see {}", log.display());
        };
        replace(&mut table, &series, column);
    }
    fs::write(&path, table.to_string()).with_context(|| format!("{PATH} could not be written"))?;
    if let Err(error) = tested {
        eprintln!("{error:#}, when it was compared with the old table");
    }
    eprintln!("wrote {PATH}");
    Ok(())
}

/// Says what would not have been allowed.
fn replace(table: &mut Table, name: &str, measured: Column) {
    for refused in table.refuse(name, &measured) {
        eprintln!("{name}: {refused}");
    }
    table.set(name, measured);
}

fn read() -> Result<Table> {
    let path: PathBuf = shell::repository().join(PATH);
    let text = fs::read_to_string(path).with_context(|| format!("{PATH} cannot be read"))?;
    Table::parse(&text).map_err(Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_as_the_table_says() {
        /// `MAX_BPF_STACK` (include/linux/filter.h).
        const LIMIT: u32 = 512;
        let (_, object) = object::committed().expect("it is committed");
        let depths = stack::depths(&object).expect("it can be read");
        for (program, depth) in &depths {
            assert!(
                depth.is_some_and(|depth| depth <= LIMIT),
                "{program}: {depth:?} bytes"
            );
        }
        let refused = read().expect("it is committed").refuse(STACK, &depths);
        assert!(
            refused.is_empty(),
            "what the programs take of the stack is not what {PATH} allows:\n  {}\nlook why; if it has to be so, write a new table: \
             cargo xtask verifier",
            refused.join("\n  ")
        );
    }
}
