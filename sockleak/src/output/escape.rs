//! What other processes are called must not command the terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with everything escaped that a terminal acts on or that hides what stands there: control characters,
/// line separators, invisible characters, marks that reverse the direction, and the backslash itself, so that
/// two different texts stay different.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            '\r' => escaped.push_str("\\r"),
            _ if !is_unsafe(character) => escaped.push(character),
            _ => {
                let code = u32::from(character);
                let written = if code < 0x100 {
                    write!(escaped, "\\x{code:02x}")
                } else {
                    write!(escaped, "\\u{{{code:x}}}")
                };
                written.expect("writing to a String cannot fail");
            }
        }
    }
    Cow::Owned(escaped)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\\' | '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_are_harmless_stay() {
        assert_eq!(escape("postgres: größer (1)"), "postgres: größer (1)");
    }

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        assert_eq!(escape("\u{1b}[2J\r\nx"), "\\x1b[2J\\r\\nx");
        assert_eq!(escape("\u{9b}1m\u{7f}"), "\\x9b1m\\x7f");
        assert_eq!(escape("a\u{202e}b\u{2066}"), "a\\u{202e}b\\u{2066}");
        assert_eq!(escape("a\\x1b"), "a\\\\x1b");
    }

    proptest! {
        #[test]
        fn the_result_is_harmless(text: String) {
            let escaped = escape(&text);
            prop_assert!(!escaped.chars().any(|character| character != '\\' && is_unsafe(character)));
        }

        #[test]
        fn different_names_stay_different(one: String, other: String) {
            prop_assert_eq!(one == other, escape(&one) == escape(&other));
        }
    }
}
