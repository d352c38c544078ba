//! The record beside the BPF object: what the object is and what it was built from.
//!
//! Two programs share this file, so that they cannot disagree: `build.rs` refuses an object that does
//! not match the sources, and `cargo xtask bpf` writes and checks the record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use sha2::{Digest, Sha256};

/// The content of the record, a TOML file of plain `key = "value"` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// SHA-256 of the object.
    pub object: String,
    /// [`sources_digest`] of the sources it was built from.
    pub sources: String,
    /// `rustc --version`, without the name.
    pub rustc: String,
    /// Version of the LLVM inside rustc.
    pub llvm: String,
    /// Version of bpf-linker.
    pub bpf_linker: String,
    /// Version of llvm-strip, which comes with the LLVM that bpf-linker was built for.
    pub llvm_strip: String,
}

impl Record {
    /// Reads what [`fmt::Display`] wrote. The error is a phrase that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = line
                .split_once(" = ")
                .and_then(|(key, value)| Some((key, value.strip_prefix('"')?.strip_suffix('"')?)))
                .ok_or_else(|| format!("it has a line that is not `key = \"value\"`: {line}"))?;
            values.insert(key, value);
        }
        let get = |key| {
            values
                .get(key)
                .map(|value| (*value).to_owned())
                .ok_or_else(|| format!("it does not say `{key}`"))
        };
        Ok(Self {
            object: get("object")?,
            sources: get("sources")?,
            rustc: get("rustc")?,
            llvm: get("llvm")?,
            bpf_linker: get("bpf_linker")?,
            llvm_strip: get("llvm_strip")?,
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            object,
            sources,
            rustc,
            llvm,
            bpf_linker,
            llvm_strip,
        } = self;
        write!(
            f,
            "# What the object beside this file was built from. `cargo xtask bpf` writes this file, \
             `cargo xtask bpf --check` verifies it.\n\
             object = \"{object}\"\n\
             sources = \"{sources}\"\n\
             rustc = \"{rustc}\"\n\
             llvm = \"{llvm}\"\n\
             bpf_linker = \"{bpf_linker}\"\n\
             llvm_strip = \"{llvm_strip}\"\n"
        )
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// One SHA-256 over everything in the repository that decides the object: the manifest and the sources
/// of `sockleak-ebpf`, and the entries of `Cargo.lock` that its programs are built with.
pub fn sources_digest(repository: &Path) -> io::Result<String> {
    let package = repository.join("sockleak-ebpf");
    let mut files = BTreeMap::new();
    let mut add = |path: PathBuf| {
        let content = read(&path)?;
        let name = path
            .strip_prefix(&package)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        files.insert(name, content);
        Ok::<_, io::Error>(())
    };
    add(package.join("Cargo.toml"))?;
    let mut folders = vec![package.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                add(path)?;
            }
        }
    }
    let lock = String::from_utf8_lossy(&read(&repository.join("Cargo.lock"))?).into_owned();
    Ok(files_digest(&files, &locked(&lock)))
}

/// The length in front of each part keeps text from moving between parts unnoticed.
fn files_digest(files: &BTreeMap<String, Vec<u8>>, lock: &str) -> String {
    let mut hash = Sha256::new();
    let parts = files
        .iter()
        .flat_map(|(name, content)| [name.as_bytes(), content])
        .chain([lock.as_bytes()]);
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The entries of a lock file for the crates of the BPF side. That of `sockleak-ebpf` itself is one of
/// them, because its version is part of the names of functions in the object.
fn locked(lock: &str) -> String {
    let bpf_side = |entry: &&str| {
        let name = entry
            .lines()
            .find_map(|line| line.strip_prefix("name = \""))
            .unwrap_or_default();
        ["aya-ebpf", "aya-log-common\"", "aya-log-ebpf", "sockleak-ebpf\""]
            .iter()
            .any(|start| name.starts_with(start))
    };
    lock.split("[[package]]")
        .map(str::trim)
        .filter(bpf_side)
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// Reads a file; an error names it, which [`io::Error`] alone does not.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            object: digest(b"object"),
            sources: digest(b"sources"),
            rustc: "1.96.0 (ac68faa20 2026-05-25)".to_owned(),
            llvm: "22.1.8".to_owned(),
            bpf_linker: "0.13.0".to_owned(),
            llvm_strip: "22.1.8".to_owned(),
        }
    }

    /// A repository with these files.
    fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(path, content).expect("a file");
        }
        root
    }

    fn digest_of(files: &[(&str, &str)]) -> String {
        sources_digest(repository(files).path()).expect("a digest")
    }

    const LOCK: &str = "version = 4\n\n\
        [[package]]\nname = \"aya\"\nversion = \"1\"\n\n\
        [[package]]\nname = \"aya-ebpf\"\nversion = \"2\"\n\n\
        [[package]]\nname = \"sockleak\"\nversion = \"3\"\n\n\
        [[package]]\nname = \"sockleak-ebpf\"\nversion = \"4\"\n";
    const FILES: [(&str, &str); 4] = [
        ("Cargo.lock", LOCK),
        ("sockleak-ebpf/Cargo.toml", "[package]"),
        ("sockleak-ebpf/src/main.rs", "main"),
        ("sockleak-ebpf/src/hooks/exit.rs", "exit"),
    ];

    #[test]
    fn what_is_printed_can_be_parsed() {
        assert_eq!(Record::parse(&record().to_string()), Ok(record()));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let text = record().to_string();
        assert!(Record::parse(&text.replace("llvm = ", "lvm = ")).is_err_and(|why| why.contains("`llvm`")));
        assert!(
            Record::parse(&text.replace("\"0.13.0\"", "0.13.0")).is_err_and(|why| why.contains("0.13.0"))
        );
        assert!(Record::parse("").is_err());
    }

    #[test]
    fn the_digest_depends_on_neither_place_nor_order() {
        let mut backwards = FILES;
        backwards.reverse();
        assert_eq!(digest_of(&FILES), digest_of(&backwards));
    }

    #[test]
    fn the_digest_sees_content_names_and_the_lock_file() {
        let original = digest_of(&FILES);
        for (index, changed) in [
            (
                0,
                ("Cargo.lock", LOCK.replace("version = \"2\"", "version = \"5\"")),
            ),
            (
                0,
                ("Cargo.lock", LOCK.replace("version = \"4\"", "version = \"5\"")),
            ),
            (1, ("sockleak-ebpf/Cargo.toml", "[lib]".to_owned())),
            (2, ("sockleak-ebpf/src/main.rs", "niam".to_owned())),
            (3, ("sockleak-ebpf/src/exit.rs", "exit".to_owned())),
        ] {
            let mut files = FILES;
            files[index] = (changed.0, &changed.1);
            assert_ne!(digest_of(&files), original, "{files:?}");
        }
    }

    #[test]
    fn the_digest_ignores_what_does_not_reach_the_object() {
        let original = digest_of(&FILES);
        let mut files = FILES.to_vec();
        files.push(("sockleak-ebpf/src/.main.rs.swp", "an editor's"));
        assert_eq!(digest_of(&files), original);
        let lock = LOCK
            .replace("version = \"1\"", "version = \"5\"")
            .replace("version = \"3\"", "version = \"5\"");
        files[0] = ("Cargo.lock", &lock);
        assert_eq!(digest_of(&files), original);
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = sources_digest(repository(&FILES[..1]).path()).expect_err("there is no manifest");
        assert!(error.to_string().contains("sockleak-ebpf/Cargo.toml"), "{error}");
    }
}
