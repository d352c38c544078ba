//! The processes that can be seen.

use std::path::Path;
use std::{fs, io};

/// The processes that can be seen, ascending.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn pids() -> io::Result<Vec<u32>> {
    let mut pids = numbers(Path::new("/proc"))?;
    pids.sort_unstable();
    Ok(pids)
}

/// The names in a directory that are numbers.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        // A process that dies while its directory is read ends the listing with an error.
        let Ok(entry) = entry else { break };
        numbers.extend(
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(numbers)
}
