//! An object in the version a client asked for. Versions of a custom resource differ in their name only; the two kinds
//! of Event are one in the store, as in a cluster.

use crate::kinds::Kind;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// The group under which a resource is stored.
pub(crate) fn storage_group<'a>(group: &'a str, resource: &str) -> &'a str {
    if group == "events.k8s.io" && resource == "events" {
        ""
    } else {
        group
    }
}

/// A stored object as `kind` presents it.
pub(crate) fn present<'a>(kind: &Kind, stored: &'a Value) -> Cow<'a, Value> {
    let api_version = kind.api_version();
    let same = stored.get("apiVersion").and_then(Value::as_str) == Some(api_version.as_str());
    if same {
        return Cow::Borrowed(stored);
    }
    let mut object = stored.clone();
    if kind.kind == "Event" && kind.group == "events.k8s.io" {
        rename(&mut object, &TO_NEW);
    }
    object["apiVersion"] = json!(api_version);
    Cow::Owned(object)
}

/// A client's object as it is stored.
pub(crate) fn stored(kind: &Kind, mut object: Value) -> Value {
    if kind.kind == "Event" && kind.group == "events.k8s.io" {
        rename(&mut object, &TO_CORE);
        object["apiVersion"] = json!("v1");
        complete_event(&mut object);
    }
    object
}

/// `kubectl get events` shows times and counts that the newer kind does not set.
fn complete_event(event: &mut Value) {
    let time = event.get("eventTime").cloned().unwrap_or(Value::Null);
    let component = event.get("reportingComponent").cloned().unwrap_or(Value::Null);
    let Some(map) = event.as_object_mut() else { return };
    if component.is_string()
        && map
            .get("source")
            .is_none_or(|s| s.as_object().is_some_and(Map::is_empty))
    {
        map.insert("source".into(), json!({"component": component}));
    }
    for field in ["firstTimestamp", "lastTimestamp"] {
        if map.get(field).is_none_or(Value::is_null)
            && let Some(seconds) = time.as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok())
        {
            map.insert(
                field.into(),
                json!(seconds.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            );
        }
    }
}

/// core name, events.k8s.io name
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

type Renaming = fn(&str) -> Option<&'static str>;
const TO_NEW: Renaming = |name| NAMES.iter().find(|(core, _)| *core == name).map(|(_, new)| *new);
const TO_CORE: Renaming = |name| NAMES.iter().find(|(_, new)| *new == name).map(|(core, _)| *core);

fn rename(event: &mut Value, renaming: &Renaming) {
    let Some(map) = event.as_object_mut() else { return };
    let renamed = std::mem::take(map)
        .into_iter()
        .map(|(name, value)| match renaming(&name) {
            Some(other) => (other.to_owned(), value),
            None => (name, value),
        });
    *map = renamed.collect();
}
