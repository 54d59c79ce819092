//! The last steps of every write: shape, defaults, admission, validation, ownership, generation.

use super::{
    Change, Context, FieldValidation, Planned, Store, convert,
    meta::{self, text},
    prepare,
    write::Target,
};
use crate::{
    admission::Operation,
    error::{ApiError, Cause},
    fields::{self, Writer},
    kinds::{Kind, Shape},
    schema, validate,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The largest object: what a request may hold.
const OBJECT_BYTES: usize = 3 << 20;

/// An object on its way into the store, beside what it replaces.
pub(super) struct Draft {
    pub(super) old: Option<Value>,
    pub(super) new: Value,
    /// Ownership is recorded already.
    pub(super) applied: bool,
}

pub(super) fn finish(
    store: &Store,
    target: &Target<'_>,
    draft: Draft,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    let Draft {
        old,
        mut new,
        applied,
    } = draft;
    let kind = target.kind;
    let warnings = shape(kind, &mut new, ctx.validation)?;
    if old.is_none() {
        prepare::initial_status(kind, &mut new);
    }
    prepare::put_defaults(kind, &mut new);
    if !applied {
        record(target, old.as_ref(), &mut new, ctx);
    }
    // What follows is the server's and owned by nobody.
    prepare::prepare(store, kind, old.as_ref(), &mut new, &ctx.time());
    if target.subresource.is_empty() {
        admit(store, kind, old.as_ref(), &mut new, ctx)?;
        prepare::put_defaults(kind, &mut new);
        prepare::prepare(store, kind, old.as_ref(), &mut new, &ctx.time());
    }
    check(kind, target, old.as_ref(), &new)?;
    bump_generation(kind, old.as_ref(), &mut new);
    store_as(store, target, old, new, warnings)
}

/// The write's fields become the writer's.
fn record(target: &Target<'_>, old: Option<&Value>, new: &mut Value, ctx: &Context<'_>) {
    let (time, api_version) = (ctx.time(), target.kind.api_version());
    let writer = Writer {
        manager: if ctx.manager.is_empty() {
            "unknown"
        } else {
            ctx.manager
        },
        operation: "Update",
        subresource: target.subresource,
        api_version: &api_version,
        now: &time,
        typed: target.kind.is_builtin(),
        has_status: target.kind.status,
    };
    fields::record_update(old.unwrap_or(&Value::Null), new, target.kind.schema(), &writer);
}

/// The object as a change of the store, unless nothing differs.
fn store_as(
    store: &Store,
    target: &Target<'_>,
    old: Option<Value>,
    mut new: Value,
    warnings: Vec<String>,
) -> Result<Planned, ApiError> {
    let kind = target.kind;
    if let Some(old) = old.as_ref().filter(|old| **old == new) {
        return Ok(Planned {
            change: None,
            object: Arc::new(old.clone()),
            created: false,
            warnings,
        });
    }
    let size = serde_json::to_vec(&new).map_or(0, |bytes| bytes.len());
    if size > OBJECT_BYTES {
        let words =
            format!("the object is {size} bytes; {OBJECT_BYTES} is the most that is stored: divide it");
        return Err(ApiError::new(413, "RequestEntityTooLarge", words));
    }
    meta::set(
        &mut new,
        "resourceVersion",
        json!((store.version() + 1).to_string()),
    );
    let created = old.is_none();
    let gone = !created && is_done_deleting(store, kind, &new);
    let key = Store::key(kind, target.namespace, text(&new, "/metadata/name"));
    let object = Arc::new(new);
    let stored = if kind.kind == "Event" {
        Arc::new(convert::stored(kind, (*object).clone()))
    } else {
        object.clone()
    };
    let change = if gone {
        Change::Remove { key, last: stored }
    } else {
        Change::Put { key, object: stored }
    };
    Ok(Planned {
        change: Some(change),
        object,
        created,
        warnings,
    })
}

/// Unknown fields are refused, warned about or dropped; warnings are returned.
fn shape(kind: &Kind, new: &mut Value, validation: FieldValidation) -> Result<Vec<String>, ApiError> {
    let Some(schema) = kind.schema() else {
        return Ok(Vec::new());
    };
    if kind.is_builtin() {
        drop_nulls(new);
    }
    let mut unknown: Vec<String> = Vec::new();
    if validation != FieldValidation::Ignore && !matches!(kind.shape, Shape::Open) {
        unknown = schema::unknown_fields(schema, new)
            .into_iter()
            .map(|path| format!("unknown field \"{path}\""))
            .collect();
    }
    if validation == FieldValidation::Strict && !unknown.is_empty() {
        let words = format!(
            "{k} in version \"{}\" cannot be handled as a {k}: strict decoding error: {}",
            kind.version,
            unknown.join(", "),
            k = kind.kind
        );
        return Err(ApiError::bad_request(words));
    }
    schema::prune(schema, new, true);
    Ok(unknown)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn admit(
    store: &Store,
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    ctx: &Context<'_>,
) -> Result<(), ApiError> {
    let operation = if old.is_some() {
        Operation::Update
    } else {
        Operation::Create
    };
    for step in ctx.admission {
        step.admit(operation, new, store).map_err(|refusal| {
            let name = text(new, "/metadata/name");
            let words = format!(
                "admission denied the request for {} \"{name}\": {}",
                kind.qualified(),
                refusal.message
            );
            ApiError::new(403, "Forbidden", words)
        })?;
    }
    Ok(())
}

fn check(kind: &Kind, target: &Target<'_>, old: Option<&Value>, new: &Value) -> Result<(), ApiError> {
    let name = text(new, "/metadata/name");
    let mut causes: Vec<Cause> = kind
        .schema()
        .map(|s| schema::validate(s, new))
        .unwrap_or_default();
    if kind.is_builtin() {
        // The original's numbers and flags are zero when they are not given.
        causes.retain(|c| c.reason != "FieldValueRequired" || !c.field.starts_with("status."));
    }
    if kind.is_builtin()
        && let Some(wrong) = causes.iter().find(|c| c.reason == "FieldValueTypeInvalid")
    {
        let words = format!(
            "{k} in version \"{}\" cannot be handled as a {k}: {}",
            kind.version,
            wrong.message.trim_start_matches("Invalid value: "),
            k = kind.kind
        );
        return Err(ApiError::bad_request(words));
    }
    if target.subresource.is_empty() {
        causes.extend(validate::metadata(kind, new));
        for cause in validate::object(kind, old, new) {
            if !causes
                .iter()
                .any(|c| c.field == cause.field && c.reason == cause.reason)
            {
                causes.push(cause);
            }
        }
        if let Some(old) = old.filter(|old| meta::is_deleting(old)) {
            let before = meta::finalizers(old);
            for added in meta::finalizers(new).iter().filter(|f| !before.contains(f)) {
                let words = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                );
                causes.push(Cause::forbidden("metadata.finalizers", &words));
            }
        }
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&kind.group, &kind.kind, name, &causes))
    }
}

/// Kinds whose `metadata.generation` counts changes of what is wanted.
fn counts_generations(kind: &Kind) -> bool {
    const COUNTED: [&str; 12] = [
        "Pod",
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CronJob",
        "EndpointSlice",
        "Ingress",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "CustomResourceDefinition",
    ];
    !kind.is_builtin()
        || COUNTED.contains(&kind.kind.as_str())
        || kind.group == "admissionregistration.k8s.io"
}

fn bump_generation(kind: &Kind, old: Option<&Value>, new: &mut Value) {
    if !counts_generations(kind) {
        return;
    }
    let Some(old) = old else {
        meta::set(new, "generation", json!(1));
        return;
    };
    let wanted = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        let mut wanted: Vec<_> = fields
            .filter(|(name, _)| *name != "metadata" && (*name != "status" || !kind.status))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        wanted
    };
    if wanted(old) != wanted(new) {
        let generation = old
            .pointer("/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        meta::set(new, "generation", json!(generation.saturating_add(1)));
    }
}

/// The object waits for nothing any more: the write that took its last finalizer removes it.
pub(super) fn is_done_deleting(store: &Store, kind: &Kind, object: &Value) -> bool {
    let grace = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    meta::is_deleting(object)
        && meta::finalizers(object).is_empty()
        && grace == 0
        && !super::gc::holds_content(store, kind, object)
}
