//! The objects that sockleak writes as JSON, each held against the committed schema.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Value, json};

/// Compiled in: in a virtual machine this program has no repository beside it.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../contract/schema.json");
    serde_json::from_str(text).expect("the schema is JSON")
});

/// By the type of the object. Each is made when the first such object comes, for a row sees a few of the types.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Validator>>> = LazyLock::new(Mutex::default);

/// The object in a line that has nothing else in it.
#[track_caller]
#[must_use]
pub fn of(line: &str) -> Value {
    match in_line(line) {
        Some(record) => record,
        None => panic!("no object of sockleak: {line}"),
    }
}

/// The object in a line; `None` if a traced COMMAND wrote the line.
#[track_caller]
#[must_use]
pub fn in_line(line: &str) -> Option<Value> {
    let record = serde_json::from_str(line).ok().filter(Value::is_object)?;
    if let Err(problems) = check(&record) {
        panic!("{problems}\nin {record}");
    }
    Some(record)
}

/// Holds an object against the schema of its type.
///
/// # Errors
/// Where it differs, a line for each place.
pub fn check(record: &Value) -> Result<(), String> {
    let kind = record["type"].as_str().unwrap_or_default();
    if !kinds().any(|known| known == kind) {
        return Err(format!("the schema has no type `{kind}`"));
    }
    let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = validators
        .entry(kind.to_owned())
        .or_insert_with(|| validator(kind));
    let problems: Vec<String> = validator
        .iter_errors(record)
        .take(SHOWN)
        .map(|error| {
            format!(
                "`{kind}` is not as the schema says at `{}`: {error}",
                error.instance_path()
            )
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(problems.join("\n"))
}

/// The types that the schema has.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    let kinds = SCHEMA["oneOf"].as_array().expect("a list").iter();
    kinds.filter_map(|kind| kind["$ref"].as_str()?.rsplit('/').next())
}

/// So many differences are shown.
const SHOWN: usize = 5;

fn validator(kind: &str) -> Validator {
    let schema = json!({
        "$schema": SCHEMA["$schema"],
        "$ref": format!("#/$defs/{kind}"),
        "$defs": SCHEMA["$defs"],
    });
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&schema).expect("it is a schema")
}

/// The ids of what could not be seen, for a report or for `sockleak port`.
#[track_caller]
#[must_use]
pub fn blind_spots(blind: &Value) -> Vec<&str> {
    let spots = blind.as_array().expect("a list").iter();
    spots.map(|spot| spot["id"].as_str().expect("an id")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/json.md");
    const IDS: &str = include_str!("../../contract/ids.txt");

    #[test]
    fn the_document_has_a_valid_example_of_each_type() {
        let blocks = DOCUMENT.split("```json\n").skip(1);
        let examples = blocks.map(|block| block.split("```").next().unwrap_or_default());
        let mut found = BTreeSet::new();
        for example in examples {
            let record: Value = serde_json::from_str(example).expect(example);
            assert_eq!(check(&record), Ok(()), "{example}");
            found.insert(record["type"].as_str().expect("a type").to_owned());
        }
        let known: BTreeSet<String> = kinds().map(str::to_owned).collect();
        assert_eq!(found, known);
    }

    /// But for names that the kernel's documents explain.
    #[test]
    fn the_document_explains_every_value() {
        for part in IDS.split("\n[").skip(1) {
            let (of, words) = part.split_once("]\n").expect("a heading");
            if matches!(of, "state" | "signal_name") {
                continue;
            }
            for word in words.lines().filter(|word| !word.is_empty()) {
                assert!(DOCUMENT.contains(&format!("`{word}`")), "{of}: {word}");
            }
        }
    }

    #[test]
    fn what_the_schema_does_not_have_is_found() {
        let lost = json!({"type": "lost", "v": 2, "time": "2026-11-30T20:49:09.523509851Z", "events": 1, "processes": 0});
        assert_eq!(check(&lost), Ok(()));
        for (key, value) in [
            ("events", json!("1")),
            ("events", json!(-1)),
            ("time", json!("2026-11-30T20:49:09Z")),
            ("v", json!(1)),
            ("more", json!(0)),
            ("type", json!("unheard")),
        ] {
            let mut wrong = lost.clone();
            wrong[key] = value;
            assert!(check(&wrong).is_err(), "{wrong}");
        }
    }
}
