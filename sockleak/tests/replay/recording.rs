//! A recording that a test changes, and what a replay says of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::contract::{self, FOLDER};

/// The program under test.
pub const SOCKLEAK: &str = env!("CARGO_BIN_EXE_sockleak");

/// Where the recordings are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FOLDER)
}

/// A recording, line by line.
#[derive(Clone)]
pub struct Recording {
    pub name: String,
    pub lines: Vec<Value>,
}

impl Recording {
    /// Every committed one.
    pub fn all() -> Vec<Self> {
        let paths = contract::all(&folder()).expect("the recordings are there");
        assert!(!paths.is_empty(), "there is no recording");
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path).expect("it is committed");
            let line = |line: &str| serde_json::from_str(line).expect("a line of JSON");
            Self {
                name: path
                    .file_name()
                    .expect("it has one")
                    .to_string_lossy()
                    .into_owned(),
                lines: text.lines().map(line).collect(),
            }
        };
        paths.iter().map(read).collect()
    }

    /// The evidence of the first death of a process of that name.
    pub fn evidence(&mut self, comm: &str) -> &mut Value {
        let place = self.place(comm);
        &mut self.lines[place]["dead"]["evidence"]
    }

    /// The look on which that evidence rests.
    pub fn look(&mut self, comm: &str) -> &mut Value {
        let place = self.place(comm);
        let key = &self.lines[place]["dead"]["snapshots"][0];
        let (netns, time) = (key["netns"].clone(), key["time"].clone());
        let mut looks = self.lines.iter_mut().filter_map(|line| line.get_mut("snapshot"));
        looks
            .find(|look| look["netns"] == netns && look["time"] == time)
            .expect("it is recorded before")
    }

    fn place(&self, comm: &str) -> usize {
        let is_of = |line: &Value| line["dead"]["evidence"]["process"]["comm"] == comm;
        let place = self.lines.iter().position(is_of);
        place.unwrap_or_else(|| panic!("no death of {comm} in {}", self.name))
    }

    /// What a replay prints in JSON, line by line.
    #[track_caller]
    pub fn replay(&self, options: &[&str]) -> Replayed {
        let lines: Vec<String> = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let output = replay(lines.concat().as_bytes(), &[&["-o", "json"], options].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.name);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let line = |line: &str| serde_json::from_str(line).expect("a line of JSON");
        Replayed(text.lines().map(line).collect())
    }
}

/// Runs a replay of a recording of these bytes.
pub fn replay(bytes: &[u8], options: &[&str]) -> Output {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("replay-{}-{number}.jsonl", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, bytes).expect("cargo made the folder");
    let mut command = Command::new(SOCKLEAK);
    let output = command.arg("replay").arg(&path).args(options).output();
    fs::remove_file(&path).expect("it is ours");
    output.expect("it starts")
}

/// The entry of a list that has this value there.
#[track_caller]
pub fn entry<'a>(list: &'a mut Value, key: &str, value: impl Into<Value>) -> &'a mut Value {
    let value = value.into();
    let mut entries = list.as_array_mut().expect("a list").iter_mut();
    let found = entries.find(|entry| entry[key] == value);
    found.unwrap_or_else(|| panic!("no entry whose {key} is {value}"))
}

/// What a replay said.
pub struct Replayed(Vec<Value>);

impl Replayed {
    /// The report of the first death of a process of that name.
    #[track_caller]
    pub fn report(&self, comm: &str) -> &Value {
        let found = self.reports().find(|report| report["process"]["comm"] == comm);
        found.unwrap_or_else(|| panic!("no report of {comm}"))
    }

    pub fn reports(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|line| line["type"] == "report")
    }
}

/// The only socket of a report of which this holds.
#[track_caller]
pub fn socket(report: &Value, holds: impl Fn(&Value) -> bool) -> &Value {
    let sockets = report["sockets"].as_array().expect("a list");
    let found: Vec<_> = sockets.iter().filter(|socket| holds(socket)).collect();
    assert_eq!(found.len(), 1, "one such socket: {report:#}");
    found[0]
}

/// What a restart of that process is told, if its socket has these options: the answer of `bind()`, and what is in its way.
#[track_caller]
pub fn restart(report: &Value, options: &[&str]) -> Value {
    let verdicts = report["restart"][0]["verdicts"].as_array().expect("a list");
    let verdict = verdicts.iter().find(|verdict| verdict["flags"] == json!(options));
    let verdict = verdict.expect("each combination has an answer");
    let blockers = verdict["blocked_by"].as_array().expect("a list").iter();
    let kinds: Vec<&Value> = blockers.map(|blocker| &blocker["kind"]).collect();
    json!([verdict["bind"], kinds])
}

/// The names of the advice.
pub fn advice(report: &Value) -> Vec<&str> {
    let advice = report["advice"].as_array().expect("a list").iter();
    advice
        .map(|piece| piece["id"].as_str().expect("a word"))
        .collect()
}
