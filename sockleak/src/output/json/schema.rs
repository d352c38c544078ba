//! The JSON schema of a line, made from the types that are written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sockleak_core::advice::{AdviceId as CoreAdviceId, Fact};
use sockleak_core::observed::{State, signal_name};

use super::advice::Named;
use super::blind::{BlindView, Spot};
use super::events::{
    DeathEventView, FreedView, LostView, MovedView, ProcessEventView, TransitionEventView, WatchView,
};
use super::free::RemovalView;
use super::incident::{IncidentIdView, IncidentView};
use super::port::PortView;
use super::record::{Kind, Record, VERSION};
use super::report::ReportView;
use super::view::{Each, Time};
use super::words::{AdviceId, SignalName, StateName};
use crate::output::{FieldRow, RequirementRow};

/// The schema of every line, one definition for each type of object.
#[must_use]
pub fn line() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut definitions = Map::new();
    for kind in all::<Kind>() {
        let definition = match kind {
            Kind::Watch => body::<WatchView<'_>>(&mut generator),
            Kind::Process => body::<ProcessEventView<'_>>(&mut generator),
            Kind::Transition => body::<TransitionEventView<'_>>(&mut generator),
            Kind::Death => body::<DeathEventView<'_>>(&mut generator),
            Kind::Report => body::<ReportView<'_>>(&mut generator),
            Kind::Incident => body::<IncidentView<'_>>(&mut generator),
            Kind::Moved => body::<MovedView>(&mut generator),
            Kind::Freed => body::<FreedView>(&mut generator),
            Kind::Lost => body::<LostView>(&mut generator),
            Kind::Port => body::<PortView<'_>>(&mut generator),
            Kind::Free => body::<RemovalView<'_>>(&mut generator),
            Kind::Check => body::<RequirementRow<'_>>(&mut generator),
            Kind::Field => body::<FieldRow>(&mut generator),
        };
        definitions.insert(name(kind), definition);
    }
    let kinds: Vec<String> = definitions.keys().cloned().collect();
    for (name, definition) in generator.take_definitions(true) {
        let known = definitions.insert(name.clone(), definition);
        assert!(known.is_none(), "two definitions are called `{name}`");
    }
    let references = kinds
        .iter()
        .map(|name| json!({"$ref": format!("#/$defs/{name}")}));
    let mut schema = Schema::try_from(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of `sockleak -o json`",
        "description": "Exactly what this version writes. Later versions may add types, keys and values: see docs/compatibility.md.",
        "oneOf": references.collect::<Vec<_>>(),
        "$defs": definitions,
    }))
    .expect("it is an object");
    RecursiveTransform(plain).transform(&mut schema);
    schema.into()
}

/// Every enumerated value, by what it is a value of.
#[must_use]
pub fn enumerations() -> BTreeMap<String, BTreeSet<String>> {
    let schema = line();
    let definitions = schema["$defs"].as_object().expect("it has definitions");
    let mut found = BTreeMap::new();
    for (name, definition) in definitions {
        let words = definition["enum"].as_array().into_iter().flatten();
        // Blind spots, which have more than a name.
        let ids = definition["oneOf"].as_array().into_iter().flatten();
        let ids = ids.map(|alternative| &alternative["properties"]["id"]["const"]);
        let words: BTreeSet<_> = words
            .chain(ids)
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if !words.is_empty() {
            found.insert(name.clone(), words);
        }
    }
    found.insert("type".to_owned(), all::<Kind>().into_iter().map(name).collect());
    found
}

/// The object that a line of that type is.
fn body<T: Record + JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = T::json_schema(generator);
    insert_property(&mut schema, "type", json!({ "const": name(T::KIND) }));
    insert_property(&mut schema, "v", json!({ "const": VERSION }));
    schema.into()
}

fn name(kind: Kind) -> String {
    let name = serde_json::to_value(kind).expect("a kind has a name");
    name.as_str().expect("a name is a string").to_owned()
}

fn insert_property(schema: &mut Schema, key: &str, value: Value) {
    let properties = schema.ensure_object().entry("properties");
    let properties = properties.or_insert_with(|| json!({}));
    properties[key] = value;
}

/// Leaves what a program needs: no comments of the source, whole lists of keys, and no formats that only schemars knows.
fn plain(schema: &mut Schema) {
    let has_keys = schema.get("properties").and_then(Value::as_object).cloned();
    if let Some(keys) = has_keys {
        schema.insert("required".to_owned(), keys.keys().cloned().collect());
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    if schema.get("$schema").is_none() {
        schema.remove("description");
        schema.remove("title");
    }
    let format = schema.get("format").and_then(Value::as_str).map(str::to_owned);
    match format.as_deref() {
        Some("ip") => {
            schema.remove("format");
            schema.insert(
                "anyOf".to_owned(),
                json!([{"format": "ipv4"}, {"format": "ipv6"}]),
            );
        }
        Some(format) if format.starts_with("uint") => drop(schema.remove("format")),
        _ => {}
    }
    let words = words(schema);
    if !words.is_empty() {
        schema.remove("oneOf");
        schema.insert("type".to_owned(), "string".into());
        schema.insert("enum".to_owned(), words.into());
    }
}

/// Every value of an enumeration, as the compiler knows it.
pub fn all<T: JsonSchema + DeserializeOwned>() -> Vec<T> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let words = words(&schema).into_iter();
    words
        .map(|word| serde_json::from_value(word.into()).expect("it is one of them"))
        .collect()
}

/// The values of an enumeration, ascending. schemars tells those with a comment apart. There are none of anything else.
fn words(schema: &Schema) -> Vec<String> {
    let list = |key: &str| {
        schema
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let alternatives = list("oneOf").into_iter().flat_map(|part| match &part["enum"] {
        Value::Array(words) => words.clone(),
        _ => vec![part["const"].clone()],
    });
    let words = list("enum").into_iter().chain(alternatives);
    let words: Option<BTreeSet<String>> = words.map(|word| word.as_str().map(str::to_owned)).collect();
    words.unwrap_or_default().into_iter().collect()
}

fn enumeration<'a>(words: impl IntoIterator<Item = &'a str>) -> Schema {
    json_schema!({"type": "string", "enum": words.into_iter().collect::<Vec<_>>()})
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$",
        })
    }
}

impl JsonSchema for IncidentIdView {
    fn schema_name() -> Cow<'static, str> {
        "incident_id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^i[0-9a-hjkmnp-tv-z]{6}$"})
    }
}

impl JsonSchema for StateName {
    fn schema_name() -> Cow<'static, str> {
        "state".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        enumeration(State::ALL.into_iter().map(State::name))
    }
}

impl JsonSchema for SignalName {
    fn schema_name() -> Cow<'static, str> {
        "signal_name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        enumeration((0..=u8::MAX).filter_map(signal_name))
    }
}

impl JsonSchema for AdviceId {
    fn schema_name() -> Cow<'static, str> {
        "advice_id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        enumeration(CoreAdviceId::ALL.into_iter().map(CoreAdviceId::name))
    }
}

impl<T, V: JsonSchema> JsonSchema for Each<'_, T, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<V>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<V>::json_schema(generator)
    }
}

impl JsonSchema for Named<'_, Fact> {
    fn schema_name() -> Cow<'static, str> {
        "evidence".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let count = generator.subschema_for::<u64>();
        let ports = generator.subschema_for::<Vec<u16>>();
        let moment = generator.subschema_for::<Option<Time>>();
        json_schema!({"type": "object", "additionalProperties": {"anyOf": [count, ports, moment]}})
    }
}

impl JsonSchema for Named<'_, &'static str> {
    fn schema_name() -> Cow<'static, str> {
        "runtimes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": {"type": "string"}})
    }
}

/// Its sentence stands beside what each blind spot has of its own.
impl JsonSchema for BlindView<'_> {
    fn schema_name() -> Cow<'static, str> {
        Spot::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Spot::json_schema(generator);
        transform_subschemas(
            &mut |spot: &mut Schema| insert_property(spot, "text", json!({"type": "string"})),
            &mut schema,
        );
        schema
    }
}
