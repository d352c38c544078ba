use std::fs;
use std::time::{Duration, Instant};

use super::*;

fn stopped(program: &str, arguments: &[&str]) -> StoppedChild {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    start(program.as_ref(), &arguments, None).unwrap()
}

fn shell(script: &str) -> RunningChild {
    stopped("sh", &["-c", script]).release().unwrap()
}

fn refused(program: &str) -> SpawnError {
    stopped(program, &[]).release().unwrap_err()
}

#[test]
fn runs_only_when_it_is_released() {
    let stopped = stopped("sleep", &["60"]);
    let link = format!("/proc/{}/exe", stopped.pid());
    assert_eq!(
        fs::read_link(&link).unwrap(),
        fs::read_link("/proc/self/exe").unwrap()
    );
    let mut child = stopped.release().unwrap();
    assert_ne!(
        fs::read_link(&link).unwrap(),
        fs::read_link("/proc/self/exe").unwrap()
    );
    assert_eq!(child.try_wait_status().unwrap(), None);
    child.signal(libc::SIGTERM).unwrap();
    assert_eq!(child.wait_status().unwrap().signal(), Some(libc::SIGTERM));
    assert_eq!(
        child.try_wait_status().unwrap().unwrap().signal(),
        Some(libc::SIGTERM)
    );
    assert_eq!(
        child.signal(libc::SIGTERM).unwrap_err().raw_os_error(),
        Some(libc::ESRCH)
    );
}

#[test]
fn returns_the_commands_status() {
    assert_eq!(shell("exit 3").wait_status().unwrap().code(), Some(3));
    assert_eq!(shell("test \"$0\" = sh").wait_status().unwrap().code(), Some(0));
    assert_eq!(
        shell("kill -PIPE $$; exit 1").wait_status().unwrap().signal(),
        Some(libc::SIGPIPE)
    );
}

#[test]
fn tells_what_cannot_be_run() {
    assert_eq!(refused("no-such-command-anywhere").exit_code(), 127);
    assert_eq!(refused("/no/such/file").exit_code(), 127);
    assert_eq!(refused("").exit_code(), 127);
    assert_eq!(refused("/etc/passwd").exit_code(), 126);
    assert_eq!(
        refused("/").to_string(),
        "cannot run /: Permission denied (os error 13)"
    );
    let nul = start("a\0b".as_ref(), &[], None).unwrap_err();
    assert_eq!(nul.exit_code(), 125);
}

#[test]
fn a_file_without_an_interpreter_line_is_a_shell_script() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("sockleak-script-{}", std::process::id()));
    fs::write(&path, "exit \"$1\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    // Another test's child that is forked while the file is written makes it busy for a moment.
    let status = (0..50).find_map(|_| {
        let child = stopped(path.to_str().unwrap(), &["5"]).release();
        child.ok().map(|mut child| child.wait_status().unwrap())
    });
    fs::remove_file(&path).unwrap();
    assert_eq!(status.unwrap().code(), Some(5));
}

#[test]
fn ends_when_it_is_dropped_or_the_tracer_dies() {
    let dropped = stopped("sleep", &["60"]);
    let pid = dropped.pid();
    drop(dropped);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());

    let mut orphaned = stopped("sleep", &["60"]);
    drop(orphaned.gate.take());
    let began = Instant::now();
    while orphaned.child.try_wait_status().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(orphaned.child.status.unwrap().code(), Some(0));
}

#[test]
#[ignore = "needs root"]
fn becomes_another_user() {
    let identity = Identity::of(65_534, 65_533).unwrap();
    let script = "test \"$(id -u):$(id -g):$(id -G)\" = 65534:65533:65533";
    let arguments = ["-c".into(), script.into()];
    let mut child = start("sh".as_ref(), &arguments, Some(&identity))
        .unwrap()
        .release()
        .unwrap();
    assert_eq!(child.wait_status().unwrap().code(), Some(0));
}
