//! What a plain scalar means (YAML's core schema, and the octal numbers that Kubernetes manifests use).

/// The meaning of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// An integer too large for `i64`.
    Unsigned(u64),
    /// A number with a fraction or an exponent, or an integer beyond 64 bits.
    Float(f64),
    /// Anything else, and everything quoted.
    Text,
}

impl Scalar {
    /// What a plain (unquoted) text means.
    pub fn of_plain(text: &str) -> Scalar {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
            "true" | "True" | "TRUE" => return Scalar::Bool(true),
            "false" | "False" | "FALSE" => return Scalar::Bool(false),
            ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
            _ => {}
        }
        let first = text.as_bytes()[0];
        if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
            return Scalar::Text;
        }
        integer(text).or_else(|| float(text)).unwrap_or(Scalar::Text)
    }
}

fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some(two) if two.starts_with('0') && two.as_bytes()[1].is_ascii_digit() => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let value = u128::from_str_radix(digits, radix).ok()?;
    if negative {
        return i64::try_from(-i128::try_from(value).ok()?)
            .ok()
            .map(Scalar::Integer);
    }
    match i64::try_from(value) {
        Ok(value) => Some(Scalar::Integer(value)),
        Err(_) => u64::try_from(value).ok().map(Scalar::Unsigned),
    }
}

fn float(text: &str) -> Option<Scalar> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Some(Scalar::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Some(Scalar::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    let shaped = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if !shaped || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Scalar::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_their_meaning() {
        assert_eq!(Scalar::of_plain("4317"), Scalar::Integer(4317));
        assert_eq!(Scalar::of_plain("0644"), Scalar::Integer(0o644));
        assert_eq!(Scalar::of_plain("089"), Scalar::Float(89.0));
        assert_eq!(Scalar::of_plain("-0x10"), Scalar::Integer(-16));
        assert_eq!(
            Scalar::of_plain("18446744073709551615"),
            Scalar::Unsigned(u64::MAX)
        );
        assert_eq!(Scalar::of_plain("1e3"), Scalar::Float(1000.0));
        assert_eq!(Scalar::of_plain("1.2.3.4"), Scalar::Text);
        assert_eq!(Scalar::of_plain("5s"), Scalar::Text);
        assert_eq!(Scalar::of_plain("-"), Scalar::Text);
        assert_eq!(Scalar::of_plain("~"), Scalar::Null);
    }
}
