//! Recordings of another format, and those that were cut.

use std::collections::BTreeSet;
use std::process::Output;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::recording::{Recording, replay};

fn bytes(recording: &Recording) -> Vec<u8> {
    let lines = recording.lines.iter().map(|line| format!("{line}\n"));
    lines.collect::<String>().into_bytes()
}

/// Another format may have other members in its header.
#[test]
fn another_format_is_left_to_the_sockleak_that_wrote_it() {
    for (format, hz) in [(0, json!(250)), (2, json!(250)), (2, json!("unknown"))] {
        let mut recording = Recording::all().remove(0);
        let header = &mut recording.lines[0]["recording"];
        (header["format"], header["sockleak"], header["hz"]) = (format.into(), "7.8.9".into(), hz);
        let output = replay(&bytes(&recording), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(output.stdout.is_empty());
        let sentence = format!(
            "cannot be replayed: it has format {format}, and this sockleak reads format 1: replay it with sockleak 7.8.9, \
             which wrote it"
        );
        assert!(said.contains(&sentence), "{said}");
    }
}

#[test]
fn a_header_that_is_none_is_refused() {
    let mut recording = Recording::all().remove(0);
    recording.lines[0]["recording"]["hz"] = Value::Null;
    let output = replay(&bytes(&recording), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("line 1 has something at column"), "{said}");
}

#[test]
fn a_recording_without_an_end_is_replayed_and_said_to_be_cut() {
    for form in ["text", "json"] {
        let mut recording = Recording::all().remove(0);
        let whole = replay(&bytes(&recording), &["-o", form]);
        assert!(!says_cut(&whole), "it has its end");
        let end = recording.lines.pop().expect("its last line");
        assert!(end.get("end").is_some(), "{end}");
        let output = replay(&bytes(&recording), &["-o", form]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, whole.stdout, "everything is there but the mark");
        assert!(says_cut(&output), "{}", String::from_utf8_lossy(&output.stderr));

        // In the midst of the last death.
        let mut text = bytes(&recording);
        text.truncate(text.len() * 3 / 4);
        let output = replay(&text, &["-o", form]);
        assert_eq!(output.status.code(), Some(0));
        assert!(whole.stdout.starts_with(&output.stdout) && !output.stdout.is_empty());
        assert!(says_cut(&output), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn says_cut(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("cut")
}

/// Nobody's trace has such values, but a file may.
#[test]
fn no_number_and_no_time_is_too_large() {
    /// The largest of each width, and the last moment that there is.
    const NUMBERS: [u64; 4] = [u64::MAX, u32::MAX as u64, u16::MAX as u64, u8::MAX as u64];
    const END: &str = "9999-12-30T22:00:00.999999999Z";
    let mut recording = Recording::all().pop().expect("there is one");
    let mut places = BTreeSet::new();
    for line in &mut recording.lines {
        visit(line, "", &mut |place, _| {
            places.insert(place.to_owned());
        });
    }
    let mut accepted = 0;
    for place in places {
        for number in NUMBERS {
            let mut changed = recording.clone();
            let mut is_number = false;
            let mut change = |here: &str, value: &mut Value| {
                if here != place {
                } else if value.is_number() {
                    *value = number.into();
                    is_number = true;
                } else if value
                    .as_str()
                    .is_some_and(|text| text.parse::<Timestamp>().is_ok())
                {
                    *value = END.into();
                }
            };
            for line in &mut changed.lines {
                visit(line, "", &mut change);
            }
            if changed.lines == recording.lines {
                break;
            }
            let output = replay(&bytes(&changed), &[]);
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                // A smaller number may fit.
                Some(2) if is_number => {}
                Some(0 | 2) => {
                    accepted += 1;
                    break;
                }
                _ => panic!("{place}: {said}"),
            }
        }
    }
    assert!(accepted > 50, "only {accepted} places were tried");
}

/// Shows every value that has no parts, with the names that lead to it.
fn visit(value: &mut Value, place: &str, see: &mut impl FnMut(&str, &mut Value)) {
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(|entry| visit(entry, place, see)),
        Value::Object(members) => {
            for (name, member) in members {
                visit(member, &format!("{place}.{name}"), see);
            }
        }
        leaf => see(place, leaf),
    }
}
