//! Amounts of resources in their one canonical spelling: `0.5` and `500m` are the same.

use serde_json::{Value, json};

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Powers of a thousand, from a billionth up.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const NANO: i128 = 1_000_000_000;

/// Rewrites an amount; what is none stays for validation to name.
pub(super) fn canonical(amount: &mut Value) {
    let text = match amount {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return,
    };
    match spell(text.trim()) {
        Some(spelled) => *amount = json!(spelled),
        None if amount.is_number() => *amount = json!(text),
        None => {}
    }
}

fn spell(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let nanos = nanos(number)?;
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        let bytes = nanos.checked_mul(1024_i128.checked_pow(u32::try_from(power).ok()? + 1)?)?;
        return if bytes % NANO == 0 {
            Some(binary(bytes / NANO))
        } else {
            decimal(bytes)
        };
    }
    let power = DECIMAL.iter().position(|s| *s == suffix)?;
    let scale = 1000_i128.checked_pow(u32::try_from(power).ok()?)?;
    // `n` is a billionth, and we count in billionths.
    decimal(nanos.checked_mul(scale)?.checked_div(NANO)?)
}

/// A decimal number in billionths.
fn nanos(number: &str) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    let value = whole * NANO + fraction;
    Some(if negative { -value } else { value })
}

fn binary(mut bytes: i128) -> String {
    let mut suffix = "";
    for next in BINARY {
        if bytes == 0 || bytes % 1024 != 0 {
            break;
        }
        bytes /= 1024;
        suffix = next;
    }
    format!("{bytes}{suffix}")
}

fn decimal(mut nanos: i128) -> Option<String> {
    if nanos == 0 {
        return Some("0".to_owned());
    }
    let mut suffix = DECIMAL.iter();
    let mut current = suffix.next()?;
    while nanos % 1000 == 0 {
        let Some(next) = suffix.next() else { break };
        nanos /= 1000;
        current = next;
    }
    Some(format!("{nanos}{current}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spells_amounts_as_the_original_does() {
        let cases = [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1", "1"),
            ("1000", "1k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("50Mi", "50Mi"),
            ("0", "0"),
            ("100n", "100n"),
            ("0.1", "100m"),
            ("2500m", "2500m"),
            ("128974848", "128974848"),
        ];
        for (given, wanted) in cases {
            assert_eq!(spell(given).as_deref(), Some(wanted), "{given}");
        }
        assert_eq!(spell("1e3"), None);
        assert_eq!(spell("many"), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_is_stable(text in "[-+]?[0-9.]{0,20}(n|u|m|k|Ki|Ei|E|x)?") {
            // What has too many digits to be read again is left as it is.
            if let Some(once) = spell(&text)
                && let Some(twice) = spell(&once)
            {
                prop_assert_eq!(twice, once);
            }
        }
    }
}
