//! Where the programs are that the tests run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The sockleak under test: as `SOCKLEAK` says, else the one built beside the tests.
#[must_use]
pub fn sockleak() -> PathBuf {
    env::var_os("SOCKLEAK").map_or_else(|| beside("sockleak"), PathBuf::from)
}

#[must_use]
pub fn victim() -> PathBuf {
    beside("victim")
}

/// A binary of the same build, or of the other profile. Test executables lie one folder deeper than binaries.
fn beside(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of the test");
    let folders = test.ancestors().skip(1).take(2).map(Path::to_owned);
    let profiles = test.ancestors().nth(3).into_iter();
    let profiles = profiles.flat_map(|target| [target.join("release"), target.join("debug")]);
    let candidates: Vec<_> = folders.chain(profiles).map(|folder| folder.join(name)).collect();
    let found = candidates.iter().find(|path| path.is_file());
    found
        .unwrap_or_else(|| panic!("no `{name}` in {candidates:?}"))
        .clone()
}

/// The interpreter itself: what `PATH` has may be a script that starts it. `None` without Python 3.11 or later.
pub fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let script = "import sys; print(sys.executable if sys.version_info >= (3, 11) else '')";
        let output = Command::new("python3").args(["-c", script]).output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?;
        (!path.trim().is_empty()).then(|| path.trim().into())
    };
    PYTHON.get_or_init(find).as_deref()
}

/// Whether `ss` of iproute2 is there.
#[must_use]
pub fn has_ss() -> bool {
    let mut ss = Command::new("ss");
    ss.arg("-V").stdout(Stdio::null()).stderr(Stdio::null());
    ss.status().is_ok_and(|status| status.success())
}
