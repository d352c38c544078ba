//! `--markdown FILE`: the tables in a document that says what they mean.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// How the block begins and ends that the tables are put into.
const BEGIN: &str = "```text\n";
const END: &str = "```";

/// # Errors
/// When the document cannot be read or written, or has no such block.
pub fn update(path: &Path, tables: &str) -> Result<()> {
    let cannot = || format!("{} could not be updated", path.display());
    let document = fs::read_to_string(path).with_context(cannot)?;
    let updated =
        replace(&document, tables).with_context(|| format!("{} has no block of text", path.display()))?;
    fs::write(path, updated).with_context(cannot)
}

fn replace(document: &str, tables: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_is_replaced() {
        let document = "# A\n\n```text\nold\n```\n\nmore\n";
        let updated = "# A\n\n```text\nnew\nlines\n```\n\nmore\n";
        assert_eq!(replace(document, "new\nlines\n").as_deref(), Some(updated));
        assert_eq!(replace("no block", "new"), None);
    }
}
