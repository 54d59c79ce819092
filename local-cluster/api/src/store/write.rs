//! Create, update, patch and apply: from what a client sends to the object as it will be.

use super::{
    Context, Planned, Store, convert,
    finish::{Draft, finish},
    meta::{self, text},
};
use crate::{
    error::{ApiError, Cause},
    fields::{self, Writer},
    kinds::Kind,
    patch::{PatchKind, patched},
};
use serde_json::{Map, Value, json};

/// Where a write goes.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Empty, `status` or `scale`.
    pub(crate) subresource: &'a str,
}

impl Target<'_> {
    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.kind.group, &self.kind.plural, self.name)
    }

    fn live(&self, store: &Store) -> Result<Value, ApiError> {
        let stored = store
            .find(&Store::key(self.kind, self.namespace, self.name))
            .ok_or_else(|| self.not_found())?;
        Ok(convert::present(self.kind, stored).into_owned())
    }
}

/// Makes the body an object of the kind that the path names, in the namespace that it names.
fn identify(target: &Target<'_>, body: &mut Value) -> Result<(), ApiError> {
    if !body.is_object() {
        return Err(ApiError::bad_request(
            "the body is not an object; send one with apiVersion, kind and metadata",
        ));
    }
    let (kind, api_version) = (&target.kind.kind, target.kind.api_version());
    for (field, wanted) in [("/kind", kind.as_str()), ("/apiVersion", api_version.as_str())] {
        let given = text(body, field);
        if !given.is_empty() && given != wanted {
            let name = &field[1..];
            let words = format!(
                "the {name} of the object ({given}) does not match the {name} of the request ({wanted})"
            );
            return Err(ApiError::bad_request(words));
        }
    }
    body["apiVersion"] = json!(api_version);
    body["kind"] = json!(kind);
    let namespace = if target.kind.namespaced {
        target.namespace
    } else {
        ""
    };
    let given = text(body, "/metadata/namespace").to_owned();
    if namespace.is_empty() {
        meta::unset(body, "namespace");
    } else if given.is_empty() || given == namespace {
        meta::set(body, "namespace", json!(namespace));
    } else {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let given = text(body, "/metadata/name").to_owned();
    if !target.name.is_empty() && given.is_empty() {
        meta::set(body, "name", json!(target.name));
    } else if !target.name.is_empty() && given != target.name {
        let words = format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            target.name
        );
        return Err(ApiError::bad_request(words));
    }
    Ok(())
}

pub(crate) fn create(
    store: &Store,
    target: Target<'_>,
    mut body: Value,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    identify(&target, &mut body)?;
    if !text(&body, "/metadata/resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    create_object(store, target, body, ctx, false)
}

fn create_object(
    store: &Store,
    target: Target<'_>,
    mut body: Value,
    ctx: &Context<'_>,
    applied: bool,
) -> Result<Planned, ApiError> {
    generate_name(&mut body, ctx.random);
    let name = text(&body, "/metadata/name").to_owned();
    check_namespace(store, &target, &name)?;
    if store
        .find(&Store::key(target.kind, target.namespace, &name))
        .is_some()
    {
        return Err(ApiError::already_exists(
            &target.kind.group,
            &target.kind.plural,
            &name,
        ));
    }
    for field in [
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        meta::unset(&mut body, field);
    }
    if !applied {
        meta::unset(&mut body, "managedFields");
    }
    meta::set(&mut body, "uid", json!(ctx.uid));
    meta::set(&mut body, "creationTimestamp", json!(ctx.time()));
    finish(
        store,
        &target,
        Draft {
            old: None,
            new: body,
            applied,
        },
        ctx,
    )
}

fn generate_name(body: &mut Value, mut random: u64) {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST: usize = 63 - 5;
    let prefix = text(body, "/metadata/generateName");
    if prefix.is_empty() || !text(body, "/metadata/name").is_empty() {
        return;
    }
    let mut name: String = prefix.chars().take(LONGEST).collect();
    for _ in 0..5 {
        let letters = LETTERS.len() as u64;
        name.push(char::from(
            LETTERS[usize::try_from(random % letters).unwrap_or(0)],
        ));
        random /= letters;
    }
    meta::set(body, "name", json!(name));
}

fn check_namespace(store: &Store, target: &Target<'_>, name: &str) -> Result<(), ApiError> {
    if !target.kind.namespaced {
        return Ok(());
    }
    let key = super::Key {
        group: String::new(),
        resource: "namespaces".into(),
        namespace: String::new(),
        name: target.namespace.to_owned(),
    };
    let Some(namespace) = store.find(&key) else {
        return Err(ApiError::not_found("", "namespaces", target.namespace));
    };
    if meta::is_deleting(namespace) {
        let words = format!(
            "{} \"{name}\" is forbidden: unable to create new content in namespace {} because it is being terminated",
            target.kind.qualified(),
            target.namespace
        );
        return Err(ApiError::new(403, "Forbidden", words));
    }
    Ok(())
}

pub(crate) fn update(
    store: &Store,
    target: Target<'_>,
    mut body: Value,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    let live = target.live(store)?;
    if target.subresource == "scale" {
        return scale(store, target, live, &body, ctx);
    }
    identify(&target, &mut body)?;
    check_versions(&target, &live, &body)?;
    replace(store, target, live, body, ctx, false)
}

fn check_versions(target: &Target<'_>, live: &Value, body: &Value) -> Result<(), ApiError> {
    let given = text(body, "/metadata/resourceVersion");
    if !given.is_empty() && given != text(live, "/metadata/resourceVersion") {
        return Err(ApiError::modified(
            &target.kind.group,
            &target.kind.plural,
            target.name,
        ));
    }
    let uid = text(body, "/metadata/uid");
    if !uid.is_empty() && uid != text(live, "/metadata/uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(live, "/metadata/uid")
        );
        return Err(ApiError::conflict(
            &target.kind.group,
            &target.kind.plural,
            target.name,
            &why,
        ));
    }
    Ok(())
}

/// Puts `body` in the place of `live`: what the server keeps is kept, the status comes only through its subresource.
fn replace(
    store: &Store,
    target: Target<'_>,
    live: Value,
    mut body: Value,
    ctx: &Context<'_>,
    applied: bool,
) -> Result<Planned, ApiError> {
    if target.subresource == "status" {
        let mut new = live.clone();
        meta::carry_top(&mut new, &body, "status");
        if let Some(fields) = body.pointer("/metadata/managedFields") {
            meta::set(&mut new, "managedFields", fields.clone());
        }
        body = new;
    } else if target.kind.status {
        meta::carry_top(&mut body, &live, "status");
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "selfLink",
        "generateName",
    ] {
        meta::carry(&mut body, &live, field);
    }
    finish(
        store,
        &target,
        Draft {
            old: Some(live),
            new: body,
            applied,
        },
        ctx,
    )
}

pub(crate) fn patch(
    store: &Store,
    target: Target<'_>,
    kind: PatchKind,
    body: &Value,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    let live = target.live(store)?;
    if target.subresource == "scale" {
        let scale = patched(kind, &scale_of(&live), body, None)?;
        return self::scale(store, target, live, &scale, ctx);
    }
    if kind == PatchKind::Strategic && !target.kind.is_builtin() {
        let words = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return Err(ApiError::new(415, "UnsupportedMediaType", words));
    }
    let mut new = patched(kind, &live, body, target.kind.schema())?;
    identify(&target, &mut new)?;
    check_versions(&target, &live, &new)?;
    replace(store, target, live, new, ctx, false)
}

pub(crate) fn apply(
    store: &Store,
    target: Target<'_>,
    mut config: Value,
    force: bool,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    if ctx.manager.is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    identify(&target, &mut config)?;
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|m| m.as_array().is_none_or(|l| !l.is_empty()))
    {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let live = target.live(store).ok();
    if let Some(live) = &live {
        check_versions(&target, live, &config)?;
    } else if !target.subresource.is_empty() {
        return Err(target.not_found());
    }
    for field in [
        "managedFields",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "selfLink",
        "uid",
        "deletionTimestamp",
    ] {
        meta::unset(&mut config, field);
    }
    if target.subresource.is_empty()
        && target.kind.status
        && let Some(map) = config.as_object_mut()
    {
        map.shift_remove("status");
    }
    let time = ctx.time();
    let api_version = target.kind.api_version();
    let writer = Writer {
        manager: ctx.manager,
        operation: "Apply",
        subresource: target.subresource,
        api_version: &api_version,
        now: &time,
        typed: target.kind.is_builtin(),
        has_status: target.kind.status,
    };
    let new = fields::apply(
        live.as_ref().unwrap_or(&Value::Null),
        &config,
        target.kind.schema(),
        &writer,
        force,
    )?;
    match live {
        Some(live) => replace(store, target, live, new, ctx, true),
        None => create_object(store, target, new, ctx, true),
    }
}

/// The `Scale` of an object.
pub(crate) fn scale_of(object: &Value) -> Value {
    let metadata: Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), object.pointer("/metadata")?.get(field)?.clone())))
        .collect();
    let labels = object
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object);
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object.pointer("/spec/replicas").cloned().unwrap_or(json!(0))},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or(json!(0)), "selector": selector.join(",")},
    })
}

fn scale(
    store: &Store,
    target: Target<'_>,
    live: Value,
    scale: &Value,
    ctx: &Context<'_>,
) -> Result<Planned, ApiError> {
    check_versions(&target, &live, scale)?;
    let replicas = scale
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let mut new = live.clone();
    if new.get("spec").is_some_and(Value::is_object) {
        new["spec"]["replicas"] = json!(replicas);
    }
    let mut planned = replace(store, target, live, new, ctx, false)?;
    planned.object = std::sync::Arc::new(scale_of(&planned.object));
    Ok(planned)
}
