//! A series as it is written: `name{label="value",…}`, or `{"a name in UTF-8",label="value",…}`.

use std::borrow::Cow;

use memchr::memchr2;

use crate::Fault;

/// How far the series reaches that starts a line: behind its name and labels.
pub(crate) fn end(line: &str) -> Result<usize, Fault> {
    let bytes = line.as_bytes();
    let mut at = bytes
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')))
        .unwrap_or(bytes.len());
    if at == 0 && bytes.first() != Some(&b'{') {
        return Err(Fault::Name);
    }
    if bytes.first().is_some_and(u8::is_ascii_digit) {
        return Err(Fault::Name);
    }
    let name = at;
    while matches!(bytes.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    match bytes.get(at) {
        Some(b'{') => braces(bytes, at + 1),
        _ => Ok(name),
    }
}

/// Behind the brace that closes labels.
pub(crate) fn braces(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    loop {
        match bytes.get(at) {
            None => return Err(Fault::Labels),
            Some(b'}') => return Ok(at + 1),
            Some(b'"') => at = quoted(bytes, at + 1)?,
            Some(_) => at += 1,
        }
    }
}

/// Behind the quote that closes a text.
fn quoted(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    loop {
        let found = memchr2(b'"', b'\\', bytes.get(at..).ok_or(Fault::Labels)?).ok_or(Fault::Labels)?;
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return Ok(at);
        }
        at += 1;
    }
}

/// Reads a series: calls back for each label, and gives the name (empty for an exemplar's labels).
pub fn parse<'a>(
    series: &'a str,
    mut label: impl FnMut(Cow<'a, str>, Cow<'a, str>),
) -> Result<Cow<'a, str>, Fault> {
    let Some((name, labels)) = series.split_once('{') else {
        return Ok(Cow::Borrowed(series.trim_end()));
    };
    let mut name = Cow::Borrowed(name.trim_end());
    let mut rest = labels.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return match after.trim().is_empty() {
                true => Ok(name),
                false => Err(Fault::Labels),
            };
        }
        let (key, after) = key(rest)?;
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix('=') {
            let text = after.trim_start().strip_prefix('"').ok_or(Fault::Labels)?;
            let end = quoted(text.as_bytes(), 0)?;
            label(key, unescape(&text[..end - 1]));
            rest = text[end..].trim_start();
        } else if name.is_empty() && labels.trim_start().starts_with('"') {
            name = key;
        } else {
            return Err(Fault::Labels);
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err(Fault::Labels),
        }
    }
}

/// A label's name, in quotes or not.
fn key(text: &str) -> Result<(Cow<'_, str>, &str), Fault> {
    if let Some(inner) = text.strip_prefix('"') {
        let end = quoted(inner.as_bytes(), 0)?;
        return Ok((unescape(&inner[..end - 1]), &inner[end..]));
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    match key.as_bytes().first() {
        None => Err(Fault::Labels),
        Some(first) if first.is_ascii_digit() => Err(Fault::Labels),
        Some(_) => Ok((Cow::Borrowed(key), rest)),
    }
}

/// Resolves `\\`, `\"` and `\n`; another escape is left as it is.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('\\' | '"')) => out.push(c),
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(series: &str) -> Result<(String, Vec<(String, String)>), Fault> {
        let mut labels = Vec::new();
        let name = parse(series, |name, value| {
            labels.push((name.into_owned(), value.into_owned()))
        })?;
        Ok((name.into_owned(), labels))
    }

    #[test]
    fn reads_what_the_formats_allow() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect()
        };
        for (series, name, labels) in [
            ("up", "up", pairs(&[])),
            ("a:b{}", "a:b", pairs(&[])),
            ("a {  b = \"c\" , d=\"\",}", "a", pairs(&[("b", "c"), ("d", "")])),
            (r#"a{b="x\"}\\\n\q,"}"#, "a", pairs(&[("b", "x\"}\\\n\\q,")])),
            (
                r#"{"my.metric","a b"="c",d="e"}"#,
                "my.metric",
                pairs(&[("a b", "c"), ("d", "e")]),
            ),
            (r#"{a="b"}"#, "", pairs(&[("a", "b")])),
        ] {
            assert_eq!(read(series), Ok((name.to_owned(), labels)), "{series}");
            assert_eq!(end(&format!("{series} 1")), Ok(series.len()), "{series}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for series in [
            "a{",
            "a{b}",
            "a{b=c}",
            r#"a{b="c}"#,
            r#"a{b="c" d="e"}"#,
            r#"a{1b="c"}"#,
            r#"a{"x","y"}"#,
            "a{,}",
        ] {
            assert!(read(series).is_err(), "{series}");
        }
        for line in ["", " 1", "1a 1", "ü 1", "a{b=\"c 1"] {
            assert!(end(line).is_err(), "{line}");
        }
    }
}
