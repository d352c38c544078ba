//! What `/proc/PID/fdinfo` tells of a descriptor, as text.

/// The value of `name:`.
#[must_use]
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(of_line).map(str::trim)
}
