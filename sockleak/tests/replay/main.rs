//! `sockleak replay` of the committed recordings: everything from the examination to the output, without root and without
//! a kernel's help.

#[expect(dead_code, reason = "recordings are made elsewhere")]
#[path = "../../../tests/src/recordings.rs"]
mod contract;
mod expected;
mod facts;
mod files;
mod recording;
