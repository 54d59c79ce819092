//! Selectors and relabellings as rules.

use serde_json::{Map, Value, json};

use super::job::JobWriter;
use super::{Refusal, list, text};

/// A label's name as meta labels have it.
pub(super) fn sanitised(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// A text as a pattern that matches itself.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Rules that keep what a label selector selects; `what` is `service`, `pod` or `ingress`.
pub(super) fn selector(job: &mut JobWriter, selector: &Value, what: &str) -> Result<(), Refusal> {
    let label = |key: &str| format!("__meta_kubernetes_{what}_label_{}", sanitised(key));
    let present = |key: &str| format!("__meta_kubernetes_{what}_labelpresent_{}", sanitised(key));
    let mut labels: Vec<(&String, &str)> = selector
        .get("matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
        .collect();
    labels.sort_unstable();
    for (key, value) in labels {
        job.keep(
            &[&label(key), &present(key)],
            &format!("({});true", quoted(value)),
        );
    }
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let values: Vec<String> = list(expression, "values")
            .iter()
            .filter_map(Value::as_str)
            .map(quoted)
            .collect();
        let any = format!("({});true", values.join("|"));
        match text(expression, "operator") {
            "In" => job.keep(&[&label(key), &present(key)], &any),
            "NotIn" => job.drop_if(&[&label(key), &present(key)], &any),
            "Exists" => job.keep(&[&present(key)], "true"),
            "DoesNotExist" => job.drop_if(&[&present(key)], "true"),
            other => return Err(format!("selector: `{other}` is no operator").into()),
        }
    }
    Ok(())
}

/// Rules as resources write them: other names of the keys, actions in any case.
pub(super) fn relabelings(written: &[Value]) -> Result<Vec<Value>, Refusal> {
    let names = [
        ("sourceLabels", "source_labels"),
        ("separator", "separator"),
        ("targetLabel", "target_label"),
        ("regex", "regex"),
        ("modulus", "modulus"),
        ("replacement", "replacement"),
        ("action", "action"),
    ];
    let rule = |(index, written): (usize, &Value)| {
        let Some(map) = written.as_object() else {
            return Err(Refusal::Wrong(format!("relabelings[{index}] is no rule")));
        };
        let mut rule = Map::new();
        for (key, value) in map {
            let Some((_, to)) = names.iter().find(|(from, _)| from == key) else {
                return Err(Refusal::Wrong(format!("relabelings[{index}].{key} is not known")));
            };
            let empty = value.as_str() == Some("") && *to != "replacement" && *to != "separator";
            if value.is_null() || empty || *to == "modulus" && value.as_u64() == Some(0) {
                continue;
            }
            let value = match (*to, value.as_str()) {
                ("action", Some(action)) => json!(action.to_lowercase()),
                _ => value.clone(),
            };
            rule.insert((*to).to_owned(), value);
        }
        Ok(Value::Object(rule))
    };
    written.iter().enumerate().map(rule).collect()
}

/// Rules that copy labels of an object to the target: `targetLabels`, `podTargetLabels`.
pub(super) fn copied_labels(job: &mut JobWriter, names: &[Value], what: &str) {
    for name in names.iter().filter_map(Value::as_str) {
        let name = sanitised(name);
        let source = format!("__meta_kubernetes_{what}_label_{name}");
        job.rules.push(
            json!({"source_labels": [source], "target_label": name, "regex": "(.+)", "replacement": "${1}"}),
        );
    }
}

/// The rule that takes the job's name from an object's label.
pub(super) fn job_label(job: &mut JobWriter, name: &str, what: &str) {
    if !name.is_empty() {
        let source = format!("__meta_kubernetes_{what}_label_{}", sanitised(name));
        job.rules.push(
            json!({"source_labels": [source], "target_label": "job", "regex": "(.+)", "replacement": "${1}"}),
        );
    }
}

/// `kubernetes_sd_configs` for a role in the namespaces that a selector names.
pub(super) fn discovery(
    job: &mut JobWriter,
    role: &str,
    namespace: &str,
    selector: Option<&Value>,
    node: bool,
) {
    let any = selector
        .and_then(|selector| selector.get("any"))
        .and_then(Value::as_bool)
        == Some(true);
    let named: Vec<&str> = selector
        .map(|selector| list(selector, "matchNames"))
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut source = Map::new();
    source.insert("role".to_owned(), role.into());
    if !any {
        let names = if named.is_empty() { vec![namespace] } else { named };
        source.insert("namespaces".to_owned(), json!({"names": names}));
    }
    if node {
        source.insert("attach_metadata".to_owned(), json!({"node": true}));
    }
    job.put("kubernetes_sd_configs", vec![Value::Object(source)]);
}
