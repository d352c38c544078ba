//! What the tests need of a kernel's packages: the image, some modules, and the image's BTF.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

use super::apt::Suite;
use super::compressor::Compressor;
use super::image;
use super::kernels::{Kernel, Kernels};

/// A kernel that is ready to be started.
pub struct Unpacked {
    /// As `uname -r` says it.
    pub release: String,
    pub image: PathBuf,
    /// The kernel's BTF, taken from the image.
    pub btf: PathBuf,
    /// Uncompressed, in the order in which they must be loaded.
    pub modules: Vec<PathBuf>,
}

/// Fetches and unpacks the newest kernel of the series, unless the cache has that one already.
pub fn fetch(kernel: &Kernel, kernels: &Kernels, cache: &Path) -> Result<Unpacked> {
    let suite = Suite::update(kernel, cache)?;
    let release = suite.newest(&kernel.series)?;
    let folder = cache.join(&release.name);
    if !folder.is_dir() {
        // It gets its name when it is whole.
        let partial = cache.join(format!("{}.partial", release.name));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let tree = partial.join("tree");
        for package in suite.download(&release, &partial)? {
            shell::run(Command::new("dpkg-deb").arg("--extract").args([&package, &tree]))?;
            fs::remove_file(package)?;
        }
        unpack(&tree, &release.name, &kernels.modules, &partial)
            .with_context(|| format!("the packages of {} cannot be used", release.name))?;
        fs::remove_dir_all(tree)?;
        fs::rename(&partial, &folder)?;
    }
    let module = |name: &String| folder.join(format!("{name}.ko"));
    Ok(Unpacked {
        release: release.name,
        image: folder.join("vmlinuz"),
        btf: folder.join("vmlinux.btf"),
        modules: kernels
            .modules
            .iter()
            .map(module)
            .filter(|path| path.exists())
            .collect(),
    })
}

/// Takes image, BTF and modules out of an unpacked tree.
fn unpack(tree: &Path, release: &str, modules: &[String], folder: &Path) -> Result<()> {
    let files = files_of(tree)?;
    let image = files
        .iter()
        .find(|path| {
            let name = path.file_name().unwrap_or_default();
            name == "vmlinuz" || name == format!("vmlinuz-{release}").as_str()
        })
        .context("no vmlinuz")?;
    fs::copy(image, folder.join("vmlinuz"))?;
    fs::write(folder.join("vmlinux.btf"), image::btf(&fs::read(image)?)?)?;
    for name in modules {
        let compressed = format!("{name}.ko.xz");
        let plain = format!("{name}.ko");
        let found = files
            .iter()
            .find(|path| path.ends_with(&compressed) || path.ends_with(&plain));
        let Some(path) = found else { continue };
        let mut module = fs::read(path)?;
        if path.ends_with(&compressed) {
            module = Compressor::Xz.expand(module)?;
        }
        fs::write(folder.join(plain), module)?;
    }
    Ok(())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_of(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}
