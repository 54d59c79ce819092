//! Label and field selectors: from a query's text to a predicate over objects.

use serde_json::Value;

/// A selector that cannot be read, with the words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub(crate) struct SelectorError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A parsed `labelSelector`. Empty matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<(String, Operator)>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3`.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        split_outside_parentheses(text)
            .into_iter()
            .filter(|p| !p.trim().is_empty())
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|(key, operator)| {
            let value = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            match operator {
                Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Operator::Exists => value.is_some(),
                Operator::Absent => value.is_none(),
                Operator::Greater(least) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v > *least),
                Operator::Less(most) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v < *most),
            }
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<(String, Operator), SelectorError> {
    let part = part.trim();
    if let Some(key) = part.strip_prefix('!') {
        return Ok((label_key(key)?, Operator::Absent));
    }
    for (word, build) in [
        (" notin ", Operator::NotIn as fn(Vec<String>) -> Operator),
        (" in ", Operator::In),
    ] {
        // `in(a)` without a blank is accepted as well.
        let tight = format!("{}(", word.trim_end());
        let split = part.split_once(word).or_else(|| {
            part.split_once(tight.as_str())
                .map(|(k, _)| (k, &part[k.len() + tight.len() - 1..]))
        });
        if let Some((key, values)) = split {
            return Ok((label_key(key)?, build(value_set(values)?)));
        }
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok((label_key(key)?, Operator::NotIn(vec![label_value(value)?])));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok((label_key(key)?, Operator::In(vec![label_value(value)?])));
    }
    if let Some((key, value)) = part.split_once('>') {
        return Ok((label_key(key)?, Operator::Greater(integer(value)?)));
    }
    if let Some((key, value)) = part.split_once('<') {
        return Ok((label_key(key)?, Operator::Less(integer(value)?)));
    }
    Ok((label_key(part)?, Operator::Exists))
}

fn label_key(key: &str) -> Result<String, SelectorError> {
    let key = key.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || key.len() > 317 || !key.chars().all(fits) {
        return Err(SelectorError(format!("invalid label key {key:?}")));
    }
    Ok(key.to_owned())
}

fn label_value(value: &str) -> Result<String, SelectorError> {
    let value = value.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.len() > 63 || !value.chars().all(fits) {
        return Err(SelectorError(format!("invalid label value {value:?}")));
    }
    Ok(value.to_owned())
}

fn integer(value: &str) -> Result<i64, SelectorError> {
    value.trim().parse().map_err(|_| {
        SelectorError(format!(
            "for 'Gt', 'Lt' operators, the value must be an integer, not {value:?}"
        ))
    })
}

fn value_set(text: &str) -> Result<Vec<String>, SelectorError> {
    let inner = text.trim().strip_prefix('(').and_then(|t| t.strip_suffix(')'));
    let inner =
        inner.ok_or_else(|| SelectorError(format!("found {text:?}, expected values in parentheses")))?;
    inner.split(',').map(label_value).collect()
}

/// A parsed `fieldSelector`: paths that must (not) equal a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String, bool)>);

impl Fields {
    /// Reads `metadata.name=a,status.phase!=Running`.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut fields = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (path, value, equal) = match (
                part.split_once("!="),
                part.split_once("==").or_else(|| part.split_once('=')),
            ) {
                (Some((path, value)), _) => (path, value, false),
                (None, Some((path, value))) => (path, value, true),
                (None, None) => {
                    return Err(SelectorError(format!(
                        "invalid field selector {part:?}; give path=value or path!=value"
                    )));
                }
            };
            fields.push((path.trim().to_owned(), value.to_owned(), equal));
        }
        Ok(Self(fields))
    }

    /// The first path that is none of those that can be selected by.
    pub(crate) fn unknown<'a>(&'a self, known: &[&str]) -> Option<&'a str> {
        self.0
            .iter()
            .map(|(path, ..)| path.as_str())
            .find(|path| !known.contains(path))
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, wanted, equal)| {
            // Events' component is called `source` in selectors.
            let path = if path == "source" && object.get("source").is_some_and(Value::is_object) {
                "source.component"
            } else {
                path
            };
            let mut value = Some(object);
            for step in path.split('.') {
                value = value.and_then(|v| v.get(step));
            }
            let found = match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            (found == *wanted) == *equal
        })
    }

    /// The name when the selector asks for one object.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labelled(selector: &str) -> bool {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "3", "a.b/c": ""}}});
        Labels::parse(selector).unwrap().matches(&object)
    }

    #[test]
    fn understands_every_operator() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db, web)",
            "app in(db,web)",
            "app notin (db)",
            "app",
            "!other",
            "tier>2,tier<4",
            "a.b/c=",
            "other!=x",
        ] {
            assert!(labelled(yes), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web,db)",
            "!app",
            "other",
            "tier>3",
            "other=x",
            "app=web,other",
        ] {
            assert!(!labelled(no), "{no}");
        }
    }

    #[test]
    fn refuses_what_is_no_selector() {
        for bad in ["=a", "a in b", "a b", "a=b c", "a>x"] {
            assert!(Labels::parse(bad).is_err(), "{bad}");
        }
        assert!(Fields::parse("metadata.name").is_err());
    }

    #[test]
    fn selects_fields() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}});
        assert!(
            Fields::parse("metadata.name=a,spec.nodeName!=m,status.phase=")
                .unwrap()
                .matches(&pod)
        );
        assert!(!Fields::parse("metadata.name!=a").unwrap().matches(&pod));
        assert_eq!(Fields::parse("a=b,c!=d").unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = Labels::parse(&text);
            let _ = Fields::parse(&text);
        }

        #[test]
        fn equality_finds_what_it_names(key in "[a-z]{1,8}(/[a-z]{1,8})?", value in "[a-z0-9]{0,8}") {
            let object = json!({"metadata": {"labels": {key.clone(): value.clone()}}});
            let equal = Labels::parse(&format!("{key}={value}")).unwrap();
            prop_assert!(equal.matches(&object));
            let negated = Labels::parse(&format!("{key}!={value}")).unwrap();
            prop_assert!(!negated.matches(&object));
        }
    }
}
