//! The file of a recording: whose it is, and what is left when it cannot be made.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use sockleak_tests::file_size;
use sockleak_tests::programs;
use sockleak_tests::rights::NOBODY;
use sockleak_tests::seccomp::{self, OWNERS};
use sockleak_tests::tracer::{Tracer, finish};
use sockleak_tests::victim::Victim;

use crate::robustness::refusals::{public_copy, refused};
use crate::{Need, named, sandboxed};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[],
        named![
            through_sudo_it_is_of_the_caller,
            what_cannot_be_given_away_is_not_left_behind,
            an_earlier_recording_stays_when_the_disk_is_full,
        ],
    );
    tests.extend(sandboxed(
        &[Need::FileCapabilities],
        named![who_is_not_root_chooses_no_owner],
    ));
    tests
}

/// The user and the group that sudo names. Nobody has to have these numbers.
const CALLER: (u32, u32) = (4_321, 8_765);

/// A trace of the victim that ends with its death and is recorded there, told by sudo who called it.
fn recorded(sockleak: &Path, victim: &Victim, recording: &Path) -> Command {
    let mut command = Command::new(sockleak);
    command
        .env("SUDO_UID", CALLER.0.to_string())
        .env("SUDO_GID", CALLER.1.to_string())
        .args([
            "-o",
            "json",
            "--once",
            "--pid",
            &victim.pid().to_string(),
            "--record",
        ])
        .arg(recording);
    command
}

/// Lets the victim die in that trace: the owner of the recording and its group, and what its mode allows.
#[track_caller]
fn owners(command: &mut Command, victim: &mut Victim, recording: &Path) -> ((u32, u32), u32) {
    let mut tracer = Tracer::spawn(command);
    tracer.watches();
    victim.killed_by(libc::SIGKILL);
    tracer.report();
    tracer.finishes();
    let file = fs::metadata(recording).expect("it was made");
    ((file.uid(), file.gid()), file.mode() & 0o777)
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let recording = folder.path().join("recording.jsonl");
    (folder, recording)
}

fn through_sudo_it_is_of_the_caller() {
    let mut victim = Victim::start();
    let (_folder, recording) = folder();
    let mut command = recorded(&programs::sockleak(), &victim, &recording);
    assert_eq!(owners(&mut command, &mut victim, &recording), (CALLER, 0o600));
}

/// The one who runs a set-user-ID copy writes its environment.
fn who_is_not_root_chooses_no_owner() {
    let (_copy, sockleak) = public_copy();
    fs::set_permissions(&sockleak, Permissions::from_mode(0o4755)).expect("it is ours");
    let mut victim = Victim::start();
    let (folder, recording) = folder();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("we are root");
    let mut command = recorded(&sockleak, &victim, &recording);
    command.uid(NOBODY).gid(NOBODY);
    let nobody = (NOBODY, NOBODY);
    assert_eq!(owners(&mut command, &mut victim, &recording), (nobody, 0o600));
}

fn what_cannot_be_given_away_is_not_left_behind() {
    let victim = Victim::start();
    let (folder, recording) = folder();
    let mut command = recorded(&programs::sockleak(), &victim, &recording);
    seccomp::refuse(&mut command, OWNERS);
    refused(&finish(&mut command), "cannot record to ");
    let left = fs::read_dir(folder.path()).expect("it is ours");
    assert_eq!(left.count(), 0);
}

fn an_earlier_recording_stays_when_the_disk_is_full() {
    let victim = Victim::start();
    let (folder, recording) = folder();
    fs::write(&recording, "earlier").expect("there is room for us");
    let mut command = recorded(&programs::sockleak(), &victim, &recording);
    file_size::no_room(&mut command);
    refused(&finish(&mut command), "cannot record to ");
    assert_eq!(fs::read_to_string(&recording).expect("it is there"), "earlier");
    let left = fs::read_dir(folder.path()).expect("it is ours");
    assert_eq!(left.count(), 1);
}
