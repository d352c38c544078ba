//! What the kernel or the privileges do not allow.

use std::os::unix::process::CommandExt;
use std::process::Command;

use libtest_mimic::Trial;
use sockleak_tests::judge;
use sockleak_tests::limit::wait_until;
use sockleak_tests::net::checked;
use sockleak_tests::programs;
use sockleak_tests::tracer::{finish, run};

use super::{crashed, lines, on_port, rows};
use crate::robustness::refusals::{public_copy, refused};
use crate::{Need, named, sandboxed, unprivileged};

pub fn tests() -> Vec<Trial> {
    let mut tests = sandboxed(
        &[Need::TimeWaitDestroy],
        named![without_a_trial_only_time_wait_is_destroyed],
    );
    tests.extend(sandboxed(
        &[Need::NoTimeWaitDestroy],
        named![an_old_kernel_is_not_asked],
    ));
    tests.extend(sandboxed(&[Need::OwnMachine], named![a_trial_leaves_nothing]));
    tests.extend(unprivileged(named![without_privilege_nothing_is_tried]));
    tests
}

/// Without CAP_SYS_ADMIN no namespace can be made to try it in. The kernel refuses a time-wait socket without
/// harm if it must; of an orphan nobody knows.
fn without_a_trial_only_time_wait_is_destroyed() {
    const CAP_SYS_ADMIN: libc::c_ulong = 21;
    let (address, _peers) = crashed();
    let mut command = Command::new(programs::sockleak());
    let port = address.port().to_string();
    command.args(["-o", "json", "free", &port, "--discard-unsent", "--yes"]);
    // SAFETY: prctl is a system call that needs no lock, and this request takes integers only.
    unsafe {
        command.pre_exec(|| checked(libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_ADMIN)).map(drop));
    }
    let run = finish(&mut command);
    assert_eq!(run.status, 1, "{}", run.stderr);
    let mut lines = lines(&run);
    // On a busy machine FIN_WAIT2 may be a full socket.
    lines.retain(|line| line["state"] != "FIN_WAIT2");
    let expected = [
        "1 FIN_WAIT1 refused orphan_untried peer_reset",
        "1 LAST_ACK refused orphan_untried peer_left_waiting",
        "3 TIME_WAIT destroyed - none",
    ];
    assert_eq!(rows(&lines), expected);
    assert!(run.stderr.contains("CAP_SYS_ADMIN"), "{}", run.stderr);
    let left = |state| judge::count(address.port(), state);
    assert_eq!(["TIME_WAIT", "FIN_WAIT1", "LAST_ACK"].map(left), [0, 1, 1]);
}

/// Trap 40: a kernel before 6.0 refuses TIME_WAIT, and makes an orphan one that never ends.
fn an_old_kernel_is_not_asked() {
    let (address, _peers) = crashed();
    let before = on_port(address.port());
    let port = address.port().to_string();
    for arguments in [&["free", &port][..], &["free", &port, "--yes"]] {
        let run = run(arguments);
        refused(&run, "this kernel cannot destroy what a dead process left");
        refused(&run, "keep the socket");
    }
    assert_eq!(on_port(address.port()), before);
}

/// A kernel with the defect would have the trial's orphan, and its namespace, for ever: only the peer's RST ends it.
fn a_trial_leaves_nothing() {
    let before = judge::sockstat_orphans();
    for _ in 0..5 {
        // Nothing is on that port, but a kernel that is too old is refused.
        assert!(matches!(run(["free", "1"]).status, 0 | 2));
    }
    wait_until("the end of the trials' orphans", || {
        judge::sockstat_orphans() <= before
    });
}

fn without_privilege_nothing_is_tried() {
    let (_folder, sockleak) = public_copy();
    for arguments in [&["free", "80"][..], &["free", "80", "--yes"]] {
        let mut command = Command::new(&sockleak);
        // SAFETY: geteuid cannot fail and touches no memory.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(65534).gid(65534);
        }
        refused(&finish(command.args(arguments)), "CAP_NET_ADMIN");
    }
}
