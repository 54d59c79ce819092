//! Objects as `kubectl get` prints them: columns and cells. Pure; `now` is an argument.

mod age;
mod core;
mod path;
mod row;
mod rows;
mod workloads;

use crate::kinds::{Kind, PrinterColumn};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) use age::age;

/// A column: its name, and whether it is shown with `-o wide` only.
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
}

impl Column {
    fn new(name: &str, priority: i64) -> Self {
        let format = if name == "Name" { "name" } else { "" };
        Self {
            name: name.to_owned(),
            kind: "string".to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority,
        }
    }
}

/// What is put beside each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// The columns of a kind.
pub(crate) fn columns(kind: &Kind) -> Vec<Column> {
    if !kind.columns.is_empty() {
        let custom = kind.columns.iter().map(|c| Column {
            name: c.name.clone(),
            kind: c.kind.clone(),
            format: c.format.clone(),
            description: c.description.clone(),
            priority: c.priority,
        });
        return std::iter::once(Column::new("Name", 0)).chain(custom).collect();
    }
    // A column that begins with `+` is shown with `-o wide` only, and so is all that stands after the bar.
    let header = rows::header(&kind.group, &kind.kind);
    let (shown, wide) = header.split_once('|').unwrap_or((header, ""));
    let column = |name: &'static str, priority: i64| match name.strip_prefix('+') {
        Some(name) => Column::new(name, 1),
        None => Column::new(name, priority),
    };
    let names = |text: &'static str| text.split(',').filter(|name| !name.is_empty());
    let mut columns: Vec<Column> = names(shown)
        .map(|n| column(n, 0))
        .chain(names(wide).map(|n| column(n, 1)))
        .collect();
    if let Some(age) = columns
        .last_mut()
        .filter(|c| !kind.is_builtin() && c.name == "Age")
    {
        age.kind = "date".to_owned();
    }
    columns
}

fn definitions(columns: &[Column]) -> Value {
    let one = |c: &Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
    columns.iter().map(one).collect()
}

fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    if kind.columns.is_empty() {
        return rows::cells(&kind.group, &kind.kind, row::Row { object, now });
    }
    let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
    std::iter::once(name)
        .chain(kind.columns.iter().map(|c| custom(c, object, now)))
        .collect()
}

fn custom(column: &PrinterColumn, object: &Value, now: Timestamp) -> Value {
    let found = path::find(&column.path, object);
    let Some(value) = found.first() else {
        return Value::Null;
    };
    match column.kind.as_str() {
        "date" => json!(
            value
                .as_str()
                .map_or_else(|| "<unknown>".to_owned(), |time| age(time, now))
        ),
        "integer" | "number" | "boolean" => (*value).clone(),
        _ if value.is_string() => (*value).clone(),
        _ => json!(value.to_string()),
    }
}

/// A `Table`; `header` is false for the later events of a watch.
pub(crate) fn table(
    kind: &Kind,
    objects: &[&Value],
    metadata: Value,
    include: Include,
    now: Timestamp,
    header: bool,
) -> Value {
    let columns = columns(kind);
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells = cells(kind, object, now);
            cells.resize(columns.len(), json!(""));
            let beside = match include {
                Include::None => Value::Null,
                Include::Object => (*object).clone(),
                Include::Metadata => json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]}),
            };
            json!({"cells": cells, "object": beside})
        })
        .collect();
    let definitions = if header {
        definitions(&columns)
    } else {
        Value::Null
    };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Registry;

    #[test]
    fn every_kind_has_as_many_cells_as_columns() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        for kind in Registry::builtin().all() {
            let object = json!({"metadata": {"name": "a", "creationTimestamp": "2025-12-31T23:59:00Z"}});
            assert_eq!(
                cells(kind, &object, now).len(),
                columns(kind).len(),
                "{}",
                kind.kind
            );
        }
    }

    #[test]
    fn pods_say_how_they_are() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let kind = Registry::builtin().in_group("", "Pod").expect("pods");
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2025-12-31T23:59:00Z"}, "spec": {"containers": [{}, {}]},
            "status": {"phase": "Running", "podIP": "127.0.0.2", "containerStatuses": [
                {"ready": true, "restartCount": 0, "state": {"running": {}}},
                {"ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let cells = cells(&kind, &pod, now);
        assert_eq!(
            cells[..6],
            [
                json!("a"),
                json!("1/2"),
                json!("CrashLoopBackOff"),
                json!("2"),
                json!("60s"),
                json!("127.0.0.2")
            ]
        );
    }
}
