//! Series written: names, labels, values as text.

use std::fmt::Write;

/// Whether a metric's name needs no quotes.
pub fn is_plain_metric(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b':'))
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}

/// Whether a label's name needs no quotes.
pub fn is_plain_label(name: &str) -> bool {
    is_plain_metric(name) && !name.contains(':')
}

/// Writes a label's value or a quoted name: `\`, `"` and the end of a line escaped.
pub fn escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Writes name and labels.
pub fn series<'a>(out: &mut String, name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let plain = is_plain_metric(name);
    let mut between = "{";
    if plain {
        out.push_str(name);
    } else if !name.is_empty() {
        out.push_str("{\"");
        escaped(out, name);
        out.push('"');
        between = ",";
    }
    for (label, value) in labels {
        out.push_str(between);
        between = ",";
        match is_plain_label(label) {
            true => out.push_str(label),
            false => {
                out.push('"');
                escaped(out, label);
                out.push('"');
            }
        }
        out.push_str("=\"");
        escaped(out, value);
        out.push('"');
    }
    match (between, name.is_empty()) {
        (",", _) => out.push('}'),
        (_, true) => out.push_str("{}"),
        _ => {}
    }
}

/// Writes a value: `NaN`, `+Inf`, `-Inf` as Go writes them.
pub fn value(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{value:e}");
    } else {
        let _ = write!(out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::parse;

    #[test]
    fn values_are_gos() {
        let write = |v| {
            let mut out = String::new();
            value(&mut out, v);
            out
        };
        for (v, text) in [
            (1.0, "1"),
            (0.25, "0.25"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
            (1e300, "1e300"),
            (0.0, "0"),
        ] {
            assert_eq!(write(v), text);
        }
    }

    proptest! {
        #[test]
        fn a_series_reads_as_it_is_written(name in "[a-zü.]{1,5}", labels in proptest::collection::vec(("[a-z_.]{1,4}", "\\PC{0,5}|[\"\\\\\n}{]{0,4}"), 0..4)) {
            let mut text = String::new();
            series(&mut text, &name, labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let mut read = Vec::new();
            let found = parse(&text, |n, v| read.push((n.into_owned(), v.into_owned())));
            prop_assert_eq!(found.as_deref(), Ok(name.as_str()), "{}", text);
            prop_assert_eq!(read, labels);
        }
    }
}
