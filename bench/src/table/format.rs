//! Lines of a table.

use crate::samples::Spread;

const LABEL: usize = 36;

/// `label  median  (least .. greatest)  remark`.
pub fn line(label: &str, spread: Spread, remark: &str) -> String {
    let Spread { median, min, max } = spread;
    let range = format!("({} .. {})", number(min), number(max));
    let line = format!("{label:<LABEL$}{:>9}  {range:<17} {remark}", number(median));
    format!("{}\n", line.trim_end())
}

/// Three figures that count, and no more than three behind the point.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        // No difference, and not a negative one.
        0.0..0.0005 => return "0".to_owned(),
        0.0005..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if digits > 0 { text } else { grouped(&text) }
}

/// With a comma after each three digits.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits
        .strip_prefix('-')
        .map_or(("", digits), |digits| ("-", digits));
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.0123, "0.012"),
            (0.9768, "0.977"),
            (1.234, "1.23"),
            (56.78, "56.8"),
            (123.4, "123"),
            (90_002.0, "90,002"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_line_has_80_columns() {
        let spread = Spread {
            median: 1234.0,
            min: 1000.0,
            max: 2000.0,
        };
        let text = line("a walk", spread, "<= 1/12 NOT met");
        assert_eq!(text.trim_end().chars().count(), 80, "{text}");
        assert!(text.contains("1,234  (1,000 .. 2,000)"), "{text}");
    }
}
