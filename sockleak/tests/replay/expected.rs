//! What a replay of each recording prints is what is committed beside it.

use std::fs;

use crate::contract::{self, FOLDER, Form, first_difference};
use crate::recording::{SOCKLEAK, folder};

/// What to do where the change is wanted.
const MENDS: &str = "if that is as it should be, write it down: cargo xtask recordings --replay";

#[test]
fn each_recording_is_judged_as_before() {
    for recording in contract::all(&folder()).expect("the recordings are there") {
        for form in Form::ALL {
            let path = recording.with_extension(form.extension());
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let expected =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{FOLDER}/{name}: {error}\n{MENDS}"));
            let output = form.replay(SOCKLEAK, &recording).output().expect("it starts");
            let printed = String::from_utf8(output.stdout).expect("UTF-8");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {said}");
            if let Some(difference) = first_difference(&expected, &printed) {
                panic!("a replay does not print what {FOLDER}/{name} has\n{difference}\n{MENDS}");
            }
        }
    }
}

#[test]
fn each_kernel_of_the_matrix_has_a_recording() {
    let list = fs::read_to_string(folder().join("../kernels.toml")).expect("the list is there");
    let series = list.lines().filter_map(|line| line.strip_prefix("series = "));
    let mut expected: Vec<_> = series.map(|series| series.trim_matches('"').to_owned()).collect();
    expected.sort();
    let recordings = contract::all(&folder()).expect("the recordings are there");
    let names = recordings.iter().filter_map(|path| path.file_stem());
    let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(names, expected, "to record them all: cargo xtask recordings");
}

#[test]
fn the_difference_is_shown_and_not_the_whole_line() {
    assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
    assert!(first_difference("a\nb\n", "a\nb").is_some());
    let missing = first_difference("a\nb\n", "a\n").expect("a line is missing");
    assert!(
        missing.contains("line 2") && missing.contains("(no more lines)"),
        "{missing}"
    );
    let long = format!("{}1{}", "x".repeat(1000), "y".repeat(1000));
    let shown = first_difference(&long, &long.replace('1', "2")).expect("they differ");
    assert!(
        shown.len() < 500 && shown.contains("xx1yy") && shown.contains("xx2yy"),
        "{shown}"
    );
}
