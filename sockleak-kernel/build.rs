//! Hands the committed BPF object to the crate, unless it is not what the sources beside it say.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "bpf/record.rs"]
mod record;

use record::Record;

const OBJECT: &str = "sockleak.bpf.o";
const RECORD: &str = "sockleak.bpf.toml";

/// Names the object to embed. `cargo xtask bpf --check` sets it to try an object of another toolchain.
const OVERRIDE: &str = "SOCKLEAK_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = match env::var_os(OVERRIDE) {
        Some(object) => PathBuf::from(object),
        None => match committed(&package) {
            Ok(object) => object,
            Err(sentence) => {
                // This ends the build, and unlike a failing exit status it says nothing beside the sentence.
                println!("cargo::error={sentence}");
                return;
            }
        },
    };
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env={OVERRIDE}={}", object.display());
}

/// The path of the committed object, if it matches the record and the record matches the sources. A
/// published crate has no sources beside it: there the object is all there is.
fn committed(package: &Path) -> Result<PathBuf, String> {
    let object = package.join("bpf").join(OBJECT);
    let record = package.join("bpf").join(RECORD);
    let repository = package.join("..");
    let sources = repository.join("sockleak-ebpf");
    println!("cargo::rerun-if-changed={}", record.display());
    if !sources.join("src").is_dir() {
        return Ok(object);
    }
    for input in [
        sources.join("Cargo.toml"),
        sources.join("src"),
        repository.join("Cargo.lock"),
    ] {
        println!("cargo::rerun-if-changed={}", input.display());
    }

    let unusable = |what: &str, why: String| {
        format!(
            "sockleak-kernel/bpf/{what} cannot be used, {why}: run `cargo xtask bpf` to build it from sockleak-ebpf"
        )
    };
    let bytes = fs::read(&object).map_err(|error| unusable(OBJECT, error.to_string()))?;
    let text = fs::read_to_string(&record).map_err(|error| unusable(RECORD, error.to_string()))?;
    let record = Record::parse(&text).map_err(|why| unusable(RECORD, why))?;
    let digest = record::sources_digest(&repository)
        .map_err(|error| format!("the sources of the BPF programs cannot be read: {error}"))?;
    if record.sources != digest {
        return Err(format!(
            "sockleak-kernel/bpf/{OBJECT} does not match the sources in sockleak-ebpf: run `cargo xtask bpf` to rebuild it \
             (`cargo xtask setup` installs what that needs)"
        ));
    }
    if record.object != record::digest(&bytes) {
        return Err(format!(
            "sockleak-kernel/bpf/{OBJECT} is not the object that sockleak-kernel/bpf/{RECORD} describes: run `cargo xtask bpf` to \
             rebuild it (`cargo xtask setup` installs what that needs)"
        ));
    }
    Ok(object)
}
