//! Cells of what makes Pods.

use super::{age, row::Row};
use serde_json::{Value, json};

pub(super) fn cells(kind: &str, row: Row<'_>) -> Vec<Value> {
    let ready = || {
        json!(format!(
            "{}/{}",
            row.number("/status/readyReplicas"),
            row.number("/spec/replicas")
        ))
    };
    let mut cells = match kind {
        "Deployment" => {
            let (updated, available) = (
                row.number("/status/updatedReplicas"),
                row.number("/status/availableReplicas"),
            );
            vec![row.name(), ready(), updated, available, row.age()]
        }
        "ReplicaSet" => {
            let (current, ready) = (
                row.number("/status/replicas"),
                row.number("/status/readyReplicas"),
            );
            vec![
                row.name(),
                row.number("/spec/replicas"),
                current,
                ready,
                row.age(),
            ]
        }
        "StatefulSet" => {
            let mut cells = vec![row.name(), ready(), row.age()];
            cells.extend(template(row).into_iter().take(2));
            return cells;
        }
        "DaemonSet" => daemon_set(row),
        "Job" => job(row),
        "CronJob" => return cron_job(row),
        _ => return vec![row.name(), row.age()],
    };
    cells.extend(template(row));
    cells
}

/// Containers, images, selector.
fn template(row: Row<'_>) -> Vec<Value> {
    let containers = || row.list("/spec/template/spec/containers");
    let names: Vec<&str> = containers().map(|c| c.text("/name")).collect();
    let images: Vec<&str> = containers().map(|c| c.text("/image")).collect();
    vec![
        json!(names.join(",")),
        json!(images.join(",")),
        json!(row.pairs("/spec/selector/matchLabels")),
    ]
}

fn daemon_set(row: Row<'_>) -> Vec<Value> {
    const COUNTS: [&str; 5] = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    let mut cells = vec![row.name()];
    cells.extend(COUNTS.iter().map(|count| row.number(&format!("/status/{count}"))));
    cells.push(json!(row.pairs("/spec/template/spec/nodeSelector")));
    cells.push(row.age());
    cells
}

fn job(row: Row<'_>) -> Vec<Value> {
    let (done, wanted) = (row.number("/status/succeeded"), row.number("/spec/completions"));
    let state = if done == wanted { "Complete" } else { "Running" };
    vec![
        row.name(),
        json!(state),
        json!(format!("{done}/{wanted}")),
        json!(""),
        row.age(),
    ]
}

fn cron_job(row: Row<'_>) -> Vec<Value> {
    let last = match row.text("/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        time => age(time, row.now),
    };
    let suspended = if row.flag("/spec/suspend") {
        "True"
    } else {
        "False"
    };
    let mut cells = vec![
        row.name(),
        json!(row.text("/spec/schedule")),
        row.words("/spec/timeZone"),
        json!(suspended),
        json!(row.size("/status/active")),
        json!(last),
        row.age(),
    ];
    let inner = Row {
        object: row.object.pointer("/spec/jobTemplate").unwrap_or(&Value::Null),
        now: row.now,
    };
    cells.extend(template(inner));
    cells
}
