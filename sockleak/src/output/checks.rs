//! What `sockleak check` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::Format;
use super::escape::escape;
use super::json::{self, Kind, Record};

/// A requirement of this machine.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RequirementRow<'a> {
    pub name: &'a str,
    pub required: bool,
    pub met: bool,
    pub detail: &'a str,
    /// The command that mends it.
    pub fix: Option<&'a str>,
}

/// A struct member in a kernel's BTF.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FieldRow {
    #[serde(rename = "struct")]
    pub structure: &'static str,
    pub member: String,
    pub bit_offset: Option<u32>,
    pub bits: Option<u32>,
    pub required: bool,
    /// It is there in a form that the programs can read.
    pub found: bool,
}

/// Prints rows, one a line.
pub struct Checks<W> {
    writer: W,
    format: Format,
}

impl Record for RequirementRow<'_> {
    const KIND: Kind = Kind::Check;
}

impl Record for FieldRow {
    const KIND: Kind = Kind::Field;
}

impl<W: Write> Checks<W> {
    pub const fn new(writer: W, format: Format) -> Self {
        Self { writer, format }
    }

    /// Prints a requirement, and below it what to do if it is not met.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn requirement(&mut self, row: &RequirementRow<'_>) -> io::Result<()> {
        if self.format == Format::Json {
            return json::write(&mut self.writer, row);
        }
        let verdict = match (row.met, row.required) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "without",
        };
        writeln!(self.writer, "{verdict:<8}{:<22}{}", row.name, escape(row.detail))?;
        if let Some(fix) = row.fix.filter(|_| !row.met) {
            writeln!(self.writer, "{:<8}fix: {}", "", escape(fix))?;
        }
        Ok(())
    }

    /// Prints a struct member.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn field(&mut self, row: &FieldRow) -> io::Result<()> {
        if self.format == Format::Json {
            return json::write(&mut self.writer, row);
        }
        let verdict = match (row.found, row.required) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "without",
        };
        let name = format!("{}.{}", row.structure, row.member);
        match (row.bit_offset, row.bits) {
            (Some(offset), Some(bits)) => {
                writeln!(self.writer, "{verdict:<8}{name:<38}bit {offset:<8}{bits} bits")
            }
            _ => writeln!(self.writer, "{verdict:<8}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(format: Format) -> String {
        let mut written = Vec::new();
        let mut checks = Checks::new(&mut written, format);
        let row = RequirementRow {
            name: "btf",
            required: true,
            met: false,
            detail: "no /sys/kernel/btf/vmlinux",
            fix: Some("boot another kernel"),
        };
        checks.requirement(&row).unwrap();
        let field = FieldRow {
            structure: "sock",
            member: "sk_shutdown".to_owned(),
            bit_offset: Some(4568),
            bits: Some(8),
            required: true,
            found: true,
        };
        checks.field(&field).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn what_is_missing_stands_above_what_to_do() {
        let expected = "MISSING btf                   no /sys/kernel/btf/vmlinux\n        fix: boot another kernel\n\
                        ok      sock.sk_shutdown                      bit 4568    8 bits\n";
        assert_eq!(told(Format::Text), expected);
    }

    #[test]
    fn json_is_the_contract() {
        let expected = concat!(
            r#"{"type":"check","v":2,"name":"btf","required":true,"met":false,"#,
            r#""detail":"no /sys/kernel/btf/vmlinux","fix":"boot another kernel"}"#,
            "\n",
            r#"{"type":"field","v":2,"struct":"sock","member":"sk_shutdown","bit_offset":4568,"bits":8,"#,
            r#""required":true,"found":true}"#,
            "\n",
        );
        assert_eq!(told(Format::Json), expected);
    }
}
