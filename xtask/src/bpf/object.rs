//! The committed object: what it is built from, and whether it still belongs to that.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::record::{self, Record};
use crate::shell;

/// The binary of `sockleak-ebpf`.
pub const NAME: &str = "sockleak";
/// Where its object is committed.
pub const PATH: &str = "sockleak-kernel/bpf/sockleak.bpf.o";
/// Where the record of it is.
const RECORD: &str = "sockleak-kernel/bpf/sockleak.bpf.toml";

const REBUILD: &str = "run `cargo xtask bpf` and commit what it writes";

/// Digest of the sources as they are now.
pub fn sources() -> Result<String> {
    Ok(record::sources_digest(shell::repository())?)
}

/// The committed record and object, if the one describes the other and both belong to the sources.
pub fn committed() -> Result<(Record, Vec<u8>)> {
    let text = fs::read_to_string(in_repository(RECORD))
        .with_context(|| format!("{RECORD} cannot be read: {REBUILD}"))?;
    let recorded = Record::parse(&text)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{RECORD} is damaged: {REBUILD}"))?;
    let committed =
        fs::read(in_repository(PATH)).with_context(|| format!("{PATH} cannot be read: {REBUILD}"))?;
    if recorded.sources != sources()? {
        bail!("{PATH} does not match the sources in sockleak-ebpf: {REBUILD}");
    }
    if recorded.object != record::digest(&committed) {
        bail!("{PATH} is not the object that {RECORD} describes: {REBUILD}");
    }
    Ok((recorded, committed))
}

/// Writes both.
pub fn write(bytes: &[u8], record: &Record) -> Result<()> {
    for (path, content) in [(PATH, bytes), (RECORD, record.to_string().as_bytes())] {
        fs::write(in_repository(path), content).with_context(|| format!("{path} could not be written"))?;
    }
    eprintln!("wrote {PATH} ({} bytes) and {RECORD}", bytes.len());
    Ok(())
}

fn in_repository(path: &str) -> PathBuf {
    shell::repository().join(path)
}
