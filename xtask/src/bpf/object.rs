//! The committed objects: what each is built from, and whether it still belongs to that.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::record::{self, Record};
use crate::shell;

/// An object that is committed with its record.
pub struct Object {
    /// Binary of `sockleak-ebpf`, and the beginning of the names of its files.
    pub name: &'static str,
    /// Where it is committed.
    folder: &'static str,
    /// Folders of `sockleak-ebpf` that it is built from.
    sources: &'static [&'static str],
}

/// What sockleak embeds.
pub const PRODUCT: Object = Object {
    name: "sockleak",
    folder: "sockleak-kernel/bpf",
    sources: &record::SOURCES,
};
/// What the bench measures it against. It shares modules with the product.
pub const BASELINES: Object = Object {
    name: "baselines",
    folder: "bench/bpf",
    sources: &["src", "baselines"],
};
pub const ALL: [Object; 2] = [PRODUCT, BASELINES];

const REBUILD: &str = "run `cargo xtask bpf` and commit what it writes";

impl Object {
    /// The path of the object in the repository.
    pub fn path(&self) -> String {
        format!("{}/{}.bpf.o", self.folder, self.name)
    }

    /// The path of its record.
    pub fn record_path(&self) -> String {
        format!("{}/{}.bpf.toml", self.folder, self.name)
    }

    /// Digest of its sources as they are now.
    pub fn sources(&self) -> Result<String> {
        Ok(record::sources_digest(shell::repository(), self.sources)?)
    }

    /// The committed record and object, if the one describes the other and both belong to the sources.
    pub fn committed(&self) -> Result<(Record, Vec<u8>)> {
        let (path, record_path) = (self.path(), self.record_path());
        let text = fs::read_to_string(in_repository(&record_path))
            .with_context(|| format!("{record_path} cannot be read: {REBUILD}"))?;
        let recorded = Record::parse(&text)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{record_path} is damaged: {REBUILD}"))?;
        let committed =
            fs::read(in_repository(&path)).with_context(|| format!("{path} cannot be read: {REBUILD}"))?;
        if recorded.sources != self.sources()? {
            bail!("{path} does not match the sources in sockleak-ebpf: {REBUILD}");
        }
        if recorded.object != record::digest(&committed) {
            bail!("{path} is not the object that {record_path} describes: {REBUILD}");
        }
        Ok((recorded, committed))
    }

    /// Writes both.
    pub fn write(&self, bytes: &[u8], record: &Record) -> Result<()> {
        for (path, content) in [
            (self.path(), bytes),
            (self.record_path(), record.to_string().as_bytes()),
        ] {
            fs::write(in_repository(&path), content)
                .with_context(|| format!("{path} could not be written"))?;
        }
        eprintln!(
            "wrote {} ({} bytes) and {}",
            self.path(),
            bytes.len(),
            self.record_path()
        );
        Ok(())
    }
}

fn in_repository(path: &str) -> PathBuf {
    shell::repository().join(path)
}
