//! What a line is: an object of one type and of one version of the format.

use std::io::{self, Write};

use serde::Serialize;

/// The version of the format. Keys, types and values may be added to it without another number.
pub(super) const VERSION: u32 = 2;

/// The types of objects.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(
    test,
    derive(serde::Deserialize, schemars::JsonSchema),
    schemars(rename = "type")
)]
pub enum Kind {
    Watch,
    Process,
    Transition,
    Death,
    Report,
    Incident,
    Moved,
    Freed,
    Lost,
    Port,
    Free,
    Check,
    Field,
}

/// The body of an object of that type.
pub trait Record: Serialize {
    const KIND: Kind;
}

/// What every line begins with.
#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(rename = "type")]
    kind: Kind,
    v: u32,
    #[serde(flatten)]
    body: &'a T,
}

/// Writes one object as a line. It is streamed, and never a string as a whole: a report may have 160,000 sockets.
///
/// # Errors
/// Those of the writer, with their kind, which tells a closed pipe.
pub fn write<T: Record>(writer: &mut impl Write, body: &T) -> io::Result<()> {
    let line = Line {
        kind: T::KIND,
        v: VERSION,
        body,
    };
    serde_json::to_writer(&mut *writer, &line).map_err(io::Error::from)?;
    writer.write_all(b"\n")
}
