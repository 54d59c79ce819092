//! The JSON paths of printer columns: fields, quoted fields, indexes, `[*]`, and one filter `[?(@.a=="b")]`.

use serde_json::Value;

/// Everything a path names. What is no path names nothing.
pub(super) fn find<'a>(path: &str, object: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches('$');
    while !rest.is_empty() && !found.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = closing(after) else {
                return Vec::new();
            };
            found = brackets(&after[..end], &found);
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (name, tail) = field(after);
            if name.is_empty() {
                return Vec::new();
            }
            found = found.into_iter().filter_map(|v| v.get(name.as_str())).collect();
            rest = tail;
        }
    }
    found
}

/// Where the bracket closes, quotes aside.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

/// A field's name up to the next `.` or `[`; `\.` is a dot in it.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (name, &text[at..]),
            _ => {
                name.push(c);
                escaped = false;
            }
        }
    }
    (name, "")
}

fn brackets<'a>(inner: &str, found: &[&'a Value]) -> Vec<&'a Value> {
    let inner = inner.trim();
    if inner == "*" {
        return found
            .iter()
            .flat_map(|v| v.as_array().into_iter().flatten())
            .collect();
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let Some((path, wanted)) = filter.split_once("==") else {
            return Vec::new();
        };
        let path = path.trim().trim_start_matches('@');
        let wanted = wanted.trim().trim_matches(['\'', '"']);
        let same = |v: &Value| match v {
            Value::String(text) => text == wanted,
            other => {
                let shown = other.to_string();
                shown == wanted
            }
        };
        let items = found.iter().flat_map(|v| v.as_array().into_iter().flatten());
        return items
            .filter(|item| find(path, item).first().is_some_and(|v| same(v)))
            .collect();
    }
    if let Ok(index) = inner.parse::<usize>() {
        return found.iter().filter_map(|v| v.get(index)).collect();
    }
    let name = inner.trim_matches(['\'', '"']);
    found.iter().filter_map(|v| v.get(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn finds_what_definitions_name() {
        let object = json!({"metadata": {"labels": {"a.b/c": "x"}}, "status": {"conditions": [{"type": "A", "status": "1"}, {"type": "Ready", "status": "True"}]}});
        let one = |path: &str| find(path, &object).first().map(|v| (*v).clone());
        assert_eq!(
            one(".status.conditions[?(@.type==\"Ready\")].status"),
            Some(json!("True"))
        );
        assert_eq!(one(".metadata.labels['a.b/c']"), Some(json!("x")));
        assert_eq!(one(".metadata.labels.a\\.b/c"), Some(json!("x")));
        assert_eq!(one(".status.conditions[0].type"), Some(json!("A")));
        assert_eq!(one(".nothing.here"), None);
    }

    proptest! {
        #[test]
        fn never_panics(path in "[.\\[\\]a-c'\"?@()=*\\\\{}$é]{0,24}") {
            let _ = find(&path, &json!({"a": [{"b": "c"}]}));
        }
    }
}
