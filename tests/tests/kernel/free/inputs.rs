//! Files that the command line names, for `free --report` and `check --btf` alike.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use sockleak_tests::file_capabilities::{
    self, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_ADMIN,
};
use sockleak_tests::net::checked;
use sockleak_tests::tracer::{Run, finish, run};

use crate::robustness::refusals::{public_copy, refused};
use crate::{Need, named, sandboxed, unprivileged};

/// A user who is not root, and a group.
const NOBODY: u32 = 65534;

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::FileCapabilities],
        named![a_copy_with_capabilities_reads_for_its_user],
    );
    tests.extend(unprivileged(named![only_files_of_a_reasonable_size_are_read]));
    tests
}

/// The two options that name a file.
const OPTIONS: [[&str; 2]; 2] = [["free", "--report"], ["check", "--btf"]];

/// Runs that program for somebody who is not root.
#[track_caller]
fn as_nobody(program: &Path, arguments: &[&str]) -> Run {
    finish(Command::new(program).uid(NOBODY).gid(NOBODY).args(arguments))
}

/// Sets one up with file capabilities and one with set-user-ID. Each could read everything.
fn a_copy_with_capabilities_reads_for_its_user() {
    let powers = [
        CAP_DAC_OVERRIDE,
        CAP_DAC_READ_SEARCH,
        CAP_NET_ADMIN,
        CAP_SYS_ADMIN,
    ];
    let (_folder, setcap) = public_copy();
    file_capabilities::give(&setcap, &powers).expect("the file system was tried");
    let (_other_folder, setuid) = public_copy();
    fs::set_permissions(&setuid, Permissions::from_mode(0o4755)).expect("it is ours");

    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("it is ours");
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("it is ours");
    let file = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, "secret\n").expect("it is ours");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        path.to_str().expect("UTF-8").to_owned()
    };
    let own = file("own", 0o600);
    let within = file("closed/within", 0o644);
    let missing = closed.join("missing").to_str().expect("UTF-8").to_owned();
    let of_group = file("of-group", 0o640);
    chown(&of_group, None, Some(NOBODY)).expect("we are root");
    let public = file("public", 0o644);

    for program in [&setcap, &setuid] {
        // It does have rights that its user has not.
        let free = as_nobody(program, &["free", "1"]);
        assert!(!free.stderr.contains("CAP_NET_ADMIN"), "{}", free.stderr);
        for [verb, option] in OPTIONS {
            for path in [&own, &within, &missing] {
                let run = as_nobody(program, &[verb, option, path]);
                refused(&run, "user 65534 may not read it");
                assert!(run.stderr.contains(path), "{}", run.stderr);
            }
            for path in [&of_group, &public] {
                let run = as_nobody(program, &[verb, option, path]);
                let read = if verb == "free" {
                    "there is no report in it"
                } else {
                    "not BTF"
                };
                refused(&run, read);
                assert!(!run.stderr.contains("secret"), "{}", run.stderr);
            }
        }
    }
    // Root itself may read it.
    refused(&run(["check", "--btf", &own]), "not BTF");
}

fn only_files_of_a_reasonable_size_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let name = CString::new(pipe.as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: The string ends with NUL.
    checked(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }).expect("it is ours");
    let pipe = pipe.to_str().expect("UTF-8");
    for [verb, option] in OPTIONS {
        for (path, words) in [
            // Nobody writes to it.
            (pipe, "a pipe, and only regular files are read"),
            ("/dev/zero", "a device"),
            ("/", "a directory"),
        ] {
            refused(&run([verb, option, path]), words);
        }
    }
    let large = folder.path().join("large");
    let file = File::create(&large).expect("it is ours");
    file.set_len(1 << 40).expect("it has holes only");
    let large = large.to_str().expect("UTF-8");
    refused(&run(["check", "--btf", large]), "larger than");
}
