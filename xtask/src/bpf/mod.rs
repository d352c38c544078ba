//! `cargo xtask bpf`: the committed object, and whether it is what the sources give.

mod build;
pub mod object;

use anyhow::{Result, bail};

use crate::record::{self, Record};
use crate::test;
use crate::toolchain::Toolchain;

#[derive(clap::Args)]
pub struct Options {
    /// Change nothing: prove that the committed object is what the sources give. With another toolchain than the
    /// recorded one, run the tests on the fresh one instead.
    #[arg(long)]
    check: bool,
}

pub fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    let toolchain = Toolchain::find()?;
    build::build(&toolchain)?;
    let bytes = build::read(&build::fresh())?;
    let record = toolchain.record(record::digest(&bytes), object::sources()?);
    object::write(&bytes, &record)
}

/// Builds the object again and compares it with the committed one.
fn check() -> Result<()> {
    let (recorded, committed) = object::committed()?;
    let toolchain = Toolchain::find()?;
    build::build(&toolchain)?;
    let fresh = build::read(&build::fresh())?;
    let here = toolchain.record(record::digest(&fresh), recorded.sources.clone());
    let differences = differences(&recorded, &here);
    if differences.is_empty() {
        return compare(&recorded, &committed, &here, &fresh);
    }
    eprintln!("this toolchain is not the recorded one, so the bytes may differ:");
    for difference in differences {
        eprintln!("  {difference}");
    }
    eprintln!("running the tests on the fresh object instead");
    test::run(&test::Options::ALL, Some(build::fresh().as_os_str()))
}

fn compare(recorded: &Record, committed: &[u8], here: &Record, fresh: &[u8]) -> Result<()> {
    const PATH: &str = object::PATH;
    if fresh == committed {
        println!(
            "identical: {PATH} is what the sources give (rustc {}, LLVM {}, bpf-linker {})",
            here.rustc, here.llvm, here.bpf_linker
        );
        return Ok(());
    }
    let offset = fresh.iter().zip(committed).take_while(|(a, b)| a == b).count();
    bail!(
        "{PATH} is not what the sources give with the recorded toolchain: it has {} bytes (SHA-256 {}), a fresh one \
         has {} bytes (SHA-256 {}), and they differ from byte {offset} on. The fresh one is {}. If the sources are \
         right, run `cargo xtask bpf` and commit what it writes.",
        committed.len(),
        recorded.object,
        fresh.len(),
        here.object,
        build::fresh().display()
    );
}

/// How two records differ in the programs that built the object.
fn differences(recorded: &Record, here: &Record) -> Vec<String> {
    [
        ("rustc", &recorded.rustc, &here.rustc),
        ("LLVM of rustc", &recorded.llvm, &here.llvm),
        ("bpf-linker", &recorded.bpf_linker, &here.bpf_linker),
        ("llvm-strip", &recorded.llvm_strip, &here.llvm_strip),
    ]
    .into_iter()
    .filter(|(_, recorded, here)| recorded != here)
    .map(|(name, recorded, here)| format!("{name}: recorded {recorded}, here {here}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_both_versions() {
        let recorded = Record {
            object: String::new(),
            sources: String::new(),
            rustc: "1.96.0".to_owned(),
            llvm: "22.1.8".to_owned(),
            bpf_linker: "0.13.0".to_owned(),
            llvm_strip: "22.1.8".to_owned(),
        };
        let here = Record {
            object: "other".to_owned(),
            llvm: "22.1.9".to_owned(),
            ..recorded.clone()
        };
        assert_eq!(differences(&recorded, &recorded), [""; 0]);
        assert_eq!(
            differences(&recorded, &here),
            ["LLVM of rustc: recorded 22.1.8, here 22.1.9"]
        );
    }
}
