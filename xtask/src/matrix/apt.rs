//! Finding and fetching a stock kernel with apt, whose lists and signatures are its own, and which leaves
//! the machine's configuration alone.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{setup, shell};

use super::kernels::Kernel;

/// Debian's keys, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Flavour of the kernels: small, and made for virtual machines.
const FLAVOUR: &str = "-cloud-amd64";

/// Lists of one suite in a folder of our own.
pub struct Suite {
    folder: PathBuf,
}

/// A kernel that the suite has.
pub struct Release {
    /// As `uname -r` says it: `6.12.117+deb12-cloud-amd64`.
    pub name: String,
    /// The packages that have its image and its modules.
    packages: Vec<String>,
}

impl Suite {
    /// Fetches the lists of the suite from the machine's own mirror.
    ///
    /// # Errors
    /// When the machine has no Debian mirror, or the mirror does not answer or is not signed by Debian.
    pub fn update(kernel: &Kernel, cache: &Path) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            setup::install(&["debian-archive-keyring"], "Debian's keys, to check its kernels")?;
        }
        let folder = cache.join(&kernel.suite);
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        let sources = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nTargets: Packages\nSigned-By: {KEYRING}\n",
            mirror(&kernel.suite)?,
            kernel.suite
        );
        fs::write(folder.join("debian.sources"), sources)
            .with_context(|| format!("{} cannot be written", folder.display()))?;
        let suite = Self { folder };
        shell::run(
            suite
                .apt("apt-get")
                .args(["update", "--quiet=2", "--error-on=any"]),
        )?;
        Ok(suite)
    }

    /// The newest release of the series.
    pub fn newest(&self, series: &str) -> Result<Release> {
        let names = |prefix: &str| shell::output(self.apt("apt-cache").args(["pkgnames", prefix]));
        let images = names("linux-image-")?;
        let name = newest(&images, series)
            .with_context(|| format!("the suite has no linux-image-{series}.*{FLAVOUR}"))?;
        // From 6.19 on the image's package is empty and two others have what it had.
        let parts = [format!("linux-binary-{name}"), format!("linux-modules-{name}")];
        let is_split = names("linux-binary-")?.lines().any(|package| package == parts[0]);
        Ok(Release {
            packages: if is_split {
                parts.to_vec()
            } else {
                vec![format!("linux-image-{name}")]
            },
            name,
        })
    }

    /// Downloads the packages into `folder` and returns their paths.
    pub fn download(&self, release: &Release, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut apt = self.apt("apt-get");
        apt.args(["download", "--quiet=2"])
            .args(&release.packages)
            .current_dir(folder);
        shell::run(&mut apt)?;
        let files = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        Ok(files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "deb"))
            .collect())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::Etc::sourcelist", &self.folder.join("debian.sources"));
        option("Dir::Etc::sourceparts", Path::new("-"));
        option("Dir::State::lists", &self.folder.join("lists"));
        option("Dir::State::status", Path::new("/dev/null"));
        option("Dir::Cache", &self.folder.join("cache"));
        // apt would run as another user, who need not be able to write into the folder.
        option("APT::Sandbox::User", Path::new("root"));
        option("APT::Architecture", Path::new("amd64"));
        option("APT::Architectures", Path::new("amd64"));
        command
    }
}

/// The mirror that the machine's own apt uses for suites of this kind.
fn mirror(suite: &str) -> Result<String> {
    if shell::find("apt-get").is_none() {
        bail!("the kernels are Debian's and are fetched by apt, which this machine does not have");
    }
    let label = if suite.ends_with("-security") {
        "Debian-Security"
    } else {
        "Debian"
    };
    let targets = shell::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    mirror_in(&targets, label).with_context(|| {
        format!(
            "apt knows no mirror labelled {label}, from which to take {suite}: add one to /etc/apt/sources.list.d and \
             run `apt-get update`"
        )
    })
}

fn mirror_in(targets: &str, label: &str) -> Option<String> {
    let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(found, _)| *found == label)
        .map(|(_, uri)| uri.to_owned())
}

/// The newest release of the series among the names of image packages.
fn newest(packages: &str, series: &str) -> Option<String> {
    let releases = packages.lines().filter_map(|package| {
        let release = package.strip_prefix("linux-image-")?;
        let rest = release.strip_prefix(series)?.strip_prefix('.')?;
        (rest.starts_with(|c: char| c.is_ascii_digit()) && release.ends_with(FLAVOUR)).then_some(release)
    });
    releases.max_by(|a, b| in_order(a, b)).map(str::to_owned)
}

/// Order of two releases by the numbers in them.
fn in_order(a: &str, b: &str) -> Ordering {
    let numbers = |release: &str| -> Vec<u32> {
        release
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_found_by_its_numbers() {
        let packages = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.12.111+deb12-cloud-amd64\n\
             linux-image-6.1.0-50-cloud-amd64\nlinux-image-6.1.0-51-amd64\nlinux-image-6.12-cloud-amd64\n\
             linux-image-6.1.0-52-cloud-amd64-unsigned\nlinux-image-6.12.99+deb12-cloud-amd64\n";
        assert_eq!(newest(packages, "6.1").as_deref(), Some("6.1.0-50-cloud-amd64"));
        assert_eq!(
            newest(packages, "6.12").as_deref(),
            Some("6.12.111+deb12-cloud-amd64")
        );
        assert_eq!(
            newest(packages, "6").as_deref(),
            Some("6.12.111+deb12-cloud-amd64")
        );
        assert_eq!(newest(packages, "5.10"), None);
    }

    #[test]
    fn the_mirror_is_the_machines_own() {
        let targets = "Other http://a/\nDebian http://m/debian/\nDebian-Security http://m/debian-security/\nDebian http://z/\n";
        assert_eq!(mirror_in(targets, "Debian").as_deref(), Some("http://m/debian/"));
        assert_eq!(
            mirror_in(targets, "Debian-Security").as_deref(),
            Some("http://m/debian-security/")
        );
        assert_eq!(mirror_in("", "Debian"), None);
    }
}
