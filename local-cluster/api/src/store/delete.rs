//! Delete: at once, or marked until grace is over, finalizers are gone and dependents are dealt with.

use super::{
    Change, Context, Planned, Store, convert, finish, gc,
    meta::{self, text},
    write::Target,
};
use crate::{
    error::{ApiError, Cause},
    kinds::Kind,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a client may ask with a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    /// `Foreground`, `Background` or `Orphan`.
    pub(crate) propagation: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// From the request's body (`DeleteOptions`) or nothing.
    pub(crate) fn from_body(body: &Value) -> Self {
        let string = |pointer: &str| Some(text(body, pointer).to_owned()).filter(|s| !s.is_empty());
        let orphans = body.get("orphanDependents").and_then(Value::as_bool);
        Self {
            grace: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: string("/propagationPolicy")
                .or_else(|| (orphans == Some(true)).then(|| "Orphan".to_owned())),
            uid: string("/preconditions/uid"),
            version: string("/preconditions/resourceVersion"),
            dry_run: body
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty()),
        }
    }
}

pub(crate) fn delete(
    store: &Store,
    target: Target<'_>,
    options: &DeleteOptions,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    let Target {
        kind,
        namespace,
        name,
        ..
    } = target;
    let key = Store::key(kind, namespace, name);
    let Some(stored) = store.find(&key) else {
        return Err(ApiError::not_found(&kind.group, &kind.plural, name));
    };
    let live = convert::present(kind, stored).into_owned();
    check_preconditions(kind, &live, options)?;
    if kind.kind == "Namespace" && kind.group.is_empty() && matches!(name, "default" | "kube-system") {
        let words = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        return Err(ApiError::new(403, "Forbidden", words));
    }
    let mut object = live.clone();
    add_finalizer(&mut object, options.propagation.as_deref())?;
    let grace = grace(kind, &live, options);
    mark(&mut object, grace, ctx);
    if kind.kind == "Namespace" && kind.group.is_empty() {
        object["status"]["phase"] = json!("Terminating");
    }
    let gone = finish::is_done_deleting(store, kind, &object);
    if !gone && object == live {
        return Ok(Planned {
            change: None,
            object: Arc::new(live),
            created: false,
            warnings: Vec::new(),
        });
    }
    meta::set(
        &mut object,
        "resourceVersion",
        json!((store.version() + 1).to_string()),
    );
    let object = Arc::new(object);
    let change = if gone {
        Change::Remove {
            key,
            last: object.clone(),
        }
    } else {
        Change::Put {
            key,
            object: object.clone(),
        }
    };
    Ok(Planned {
        change: Some(change),
        object,
        created: false,
        warnings: Vec::new(),
    })
}

fn check_preconditions(kind: &Kind, live: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let name = text(live, "/metadata/name");
    let pairs = [
        ("UID", &options.uid, "/metadata/uid"),
        ("ResourceVersion", &options.version, "/metadata/resourceVersion"),
    ];
    for (what, wanted, pointer) in pairs {
        let found = text(live, pointer);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(&kind.group, &kind.plural, name, &why));
        }
    }
    Ok(())
}

fn add_finalizer(object: &mut Value, propagation: Option<&str>) -> Result<(), ApiError> {
    let added = match propagation {
        None | Some("Background") => None,
        Some("Foreground") => Some(gc::FOREGROUND),
        Some("Orphan") => Some(gc::ORPHAN),
        Some(other) => {
            let allowed = "\"Foreground\", \"Background\", \"Orphan\", \"nil\"";
            let cause = Cause::unsupported("propagationPolicy", &json!(other), allowed);
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[cause]));
        }
    };
    let mut finalizers: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    if propagation.is_some() {
        finalizers.retain(|f| f != gc::FOREGROUND && f != gc::ORPHAN);
    }
    finalizers.extend(added.map(str::to_owned));
    meta::set_finalizers(object, &finalizers);
    Ok(())
}

/// How long a Pod may take to stop; nothing else is waited for.
fn grace(kind: &Kind, live: &Value, options: &DeleteOptions) -> i64 {
    if kind.kind != "Pod" || !kind.group.is_empty() {
        return 0;
    }
    let unbound = text(live, "/spec/nodeName").is_empty();
    if unbound || matches!(text(live, "/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let configured = live
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(30);
    options.grace.unwrap_or(configured).max(0)
}

/// Marks the object as being deleted; a mark that is there is only ever brought forward.
fn mark(object: &mut Value, grace: i64, ctx: &Context<'_>) {
    let before = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    if meta::is_deleting(object) && before.unwrap_or(0) <= grace {
        return;
    }
    let until = ctx
        .now
        .saturating_add(jiff::SignedDuration::from_secs(grace.min(1 << 31)))
        .unwrap_or(ctx.now);
    meta::set(
        object,
        "deletionTimestamp",
        json!(until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    );
    meta::set(object, "deletionGracePeriodSeconds", json!(grace));
    if let Some(generation) = object.pointer("/metadata/generation").and_then(Value::as_i64) {
        meta::set(object, "generation", json!(generation.saturating_add(1)));
    }
}
