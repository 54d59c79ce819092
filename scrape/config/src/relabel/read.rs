//! Rules as a document writes them, checked as Prometheus checks them.

use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use serde::Deserialize;

use super::{Action, DEFAULT_REGEX, DEFAULT_REPLACEMENT, Rule, RuleText};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleDocument {
    source_labels: Option<Vec<String>>,
    separator: Option<String>,
    target_label: Option<String>,
    regex: Option<String>,
    modulus: Option<u64>,
    replacement: Option<String>,
    action: Option<String>,
}

/// Reads a list of rules; those that are wrong are reported and left out.
pub(crate) fn rules(list: Option<&Node>, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Vec<Rule> {
    let Some(list) = list.filter(|list| !list.is_null()) else {
        return Vec::new();
    };
    if list.items().is_empty() && !matches!(list.kind, karez_document::yaml::Kind::Sequence(_)) {
        let message = format!("a list of rules is needed, {} is here", list.describe());
        diagnoses.push(Diagnosis::error(
            list.place(),
            key,
            message,
            "start each rule with `- `",
        ));
    }
    let rule = |(index, node)| rule(node, &format!("{key}[{index}]"), diagnoses);
    list.items().iter().enumerate().filter_map(rule).collect()
}

fn rule(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<Rule> {
    let document: RuleDocument = decode_at(node, key, diagnoses)?;
    let mut wrong = |name: &str, message: String, mend: &str| {
        diagnoses.push(Diagnosis::error(
            node.key_place(name),
            join_key(key, name),
            message,
            mend,
        ));
    };
    let action = match action(document.action.as_deref().unwrap_or("replace")) {
        Ok(action) => action,
        Err((message, mend)) => {
            wrong("action", message, mend);
            return None;
        }
    };
    let text = RuleText {
        source_labels: document.source_labels.clone().unwrap_or_default(),
        separator: document.separator.clone().unwrap_or_else(|| ";".to_owned()),
        target_label: document.target_label.clone().unwrap_or_default(),
        regex: document.regex.clone().unwrap_or_else(|| DEFAULT_REGEX.to_owned()),
        modulus: document.modulus.unwrap_or(0),
        replacement: document
            .replacement
            .clone()
            .unwrap_or_else(|| DEFAULT_REPLACEMENT.to_owned()),
        action,
    };
    if let Some((name, message, mend)) = fault(&document, &text) {
        wrong(name, message, mend);
        return None;
    }
    match Rule::new(text) {
        Ok(rule) => Some(rule),
        Err(error) => {
            wrong("regex", error, "write it in RE2's syntax");
            None
        }
    }
}

fn action(written: &str) -> Result<Action, (String, &'static str)> {
    let actions = [
        Action::Replace,
        Action::Keep,
        Action::Drop,
        Action::KeepEqual,
        Action::DropEqual,
        Action::HashMod,
        Action::LabelMap,
        Action::LabelDrop,
        Action::LabelKeep,
        Action::Lowercase,
        Action::Uppercase,
    ];
    let found = actions.into_iter().find(|a| a.as_str() == written.to_lowercase());
    found.ok_or_else(|| {
        let mend = "write replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, \
                    lowercase or uppercase";
        (format!("`{written}` is no action"), mend)
    })
}

type Fault = (&'static str, String, &'static str);

/// What Prometheus refuses.
fn fault(document: &RuleDocument, text: &RuleText) -> Option<Fault> {
    let action = text.action;
    let name = action.as_str();
    let sets = matches!(
        action,
        Action::Replace
            | Action::HashMod
            | Action::Lowercase
            | Action::Uppercase
            | Action::KeepEqual
            | Action::DropEqual
    );
    if action == Action::HashMod && text.modulus == 0 {
        return Some((
            "modulus",
            "`hashmod` needs a modulus above 0".to_owned(),
            "add `modulus:`",
        ));
    }
    if sets && text.target_label.is_empty() {
        let message = format!("`{name}` needs a target label");
        return Some(("target_label", message, "add `target_label:`"));
    }
    let other_replacement = text.replacement != DEFAULT_REPLACEMENT;
    if matches!(action, Action::Lowercase | Action::Uppercase) && other_replacement {
        let message = format!("`{name}` takes no replacement");
        return Some(("replacement", message, "remove it"));
    }
    if action == Action::LabelMap && text.replacement.is_empty() {
        return Some((
            "replacement",
            "is no name of a label".to_owned(),
            "write such as `$1`",
        ));
    }
    let equal = matches!(action, Action::KeepEqual | Action::DropEqual);
    let names = matches!(action, Action::LabelDrop | Action::LabelKeep);
    let foreign = [
        ("regex", equal && text.regex != DEFAULT_REGEX),
        (
            "separator",
            (equal || names) && document.separator.as_deref().is_some_and(|s| s != ";"),
        ),
        ("modulus", (equal || names) && text.modulus != 0),
        ("replacement", (equal || names) && other_replacement),
        ("source_labels", names && document.source_labels.is_some()),
        ("target_label", names && !text.target_label.is_empty()),
    ];
    let (foreign, _) = foreign.into_iter().find(|(_, there)| *there)?;
    let message = match equal {
        true => format!("`{name}` takes only `source_labels` and `target_label`"),
        false => format!("`{name}` takes only `regex`"),
    };
    Some((foreign, message, "remove it"))
}
