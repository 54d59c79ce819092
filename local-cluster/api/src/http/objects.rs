//! The verbs on objects.

use super::{
    Asked, accounts, logs,
    path::{Place, Resource},
    respond::{self, ApiBody},
    watch,
};
use crate::{
    cluster::{LocalCluster, WriteOptions},
    error::{ApiError, qualified},
    kinds::Kind,
    patch::PatchKind,
    store::{self, DeleteOptions, Planned, Store, Target, convert},
    table,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// A resource whose kind was found.
pub(crate) struct At {
    pub(crate) kind: Arc<Kind>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl At {
    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            kind: &self.kind,
            namespace: self.namespace.as_deref().unwrap_or(""),
            name: &self.name,
            subresource: &self.subresource,
        }
    }
}

pub(crate) async fn answer(cluster: Arc<LocalCluster>, asked: Asked) -> Result<Response<ApiBody>, ApiError> {
    let Place::Resource(resource) = &asked.place else {
        return Err(ApiError::no_such_path());
    };
    if let Some(answer) = accounts::review(&cluster, &asked, &resource.group, &resource.plural) {
        return answer;
    }
    let at = find(&cluster, resource)?;
    if !at.subresource.is_empty() {
        return subresource(cluster, asked, at).await;
    }
    match (asked.method.clone(), at.name.is_empty()) {
        (Method::GET, true) if asked.query.flag("watch") => watch::answer(cluster, &asked, at),
        (Method::GET, true) => list(&cluster, &asked, &at),
        (Method::GET, false) if asked.query.flag("watch") => watch::answer(cluster, &asked, at),
        (Method::GET, false) => get(&cluster, &asked, &at),
        (Method::POST, true) => create(cluster, asked, at).await,
        (Method::PUT, false) => update(cluster, asked, at).await,
        (Method::PATCH, false) => patch(cluster, asked, at).await,
        (Method::DELETE, false) => delete(cluster, asked, at).await,
        (Method::DELETE, true) => delete_collection(cluster, asked, at).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn find(cluster: &LocalCluster, resource: &Resource) -> Result<At, ApiError> {
    let kind = cluster
        .read()
        .registry
        .resource(&resource.group, &resource.version, &resource.plural);
    let kind = kind.ok_or_else(ApiError::no_such_path)?;
    // A namespaced object is named with its namespace, one of the cluster without; lists may span all namespaces.
    let misplaced = if kind.namespaced {
        resource.namespace.is_none() && !resource.name.is_empty()
    } else {
        resource.namespace.is_some()
    };
    if misplaced {
        return Err(ApiError::no_such_path());
    }
    Ok(At {
        kind,
        namespace: resource.namespace.clone(),
        name: resource.name.clone(),
        subresource: resource.subresource.clone(),
    })
}

async fn subresource(
    cluster: Arc<LocalCluster>,
    asked: Asked,
    at: At,
) -> Result<Response<ApiBody>, ApiError> {
    match (
        at.kind.group.as_str(),
        at.kind.kind.as_str(),
        at.subresource.as_str(),
    ) {
        ("", "Pod", "log") => return logs::answer(cluster, asked, at).await,
        ("", "Pod", "eviction") => return accounts::evict(cluster, asked, at).await,
        ("", "ServiceAccount", "token") => return accounts::token(&cluster, &asked, &at),
        _ => {}
    }
    let served = match at.subresource.as_str() {
        "status" => at.kind.status,
        "scale" => at.kind.scale,
        _ => false,
    };
    if !served {
        return Err(ApiError::no_such_path());
    }
    match asked.method {
        Method::GET if at.subresource == "scale" => {
            let object = cluster.object(&at.kind, at.target().namespace, &at.name)?;
            Ok(respond::json(StatusCode::OK, &store::scale_of(&object)))
        }
        Method::GET => get(&cluster, &asked, &at),
        Method::PUT => update(cluster, asked, at).await,
        Method::PATCH => patch(cluster, asked, at).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn get(cluster: &LocalCluster, asked: &Asked, at: &At) -> Result<Response<ApiBody>, ApiError> {
    let object = cluster.object(&at.kind, at.target().namespace, &at.name)?;
    if let Some(include) = asked.table() {
        let object = convert::present(&at.kind, &object);
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let table = table::table(&at.kind, &[&object], metadata, include, Timestamp::now(), true);
        return Ok(respond::json(StatusCode::OK, &table));
    }
    Ok(respond::json(
        StatusCode::OK,
        &convert::present(&at.kind, &object),
    ))
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Value>>,
    pub(crate) version: String,
    pub(crate) next: Option<String>,
}

/// Where a continued list goes on: the version it began with, the last object's namespace and name.
fn read_token(token: &str) -> Result<(String, String, String), ApiError> {
    let bad = || ApiError::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    serde_json::from_slice(&bytes).map_err(|_| bad())
}

pub(crate) fn page(cluster: &LocalCluster, asked: &Asked, at: &At) -> Result<Page, ApiError> {
    let (labels, fields) = (asked.query.labels()?, asked.query.fields(&at.kind)?);
    let limit = asked
        .query
        .number("limit")
        .filter(|l| *l > 0)
        .and_then(|l| usize::try_from(l).ok())
        .unwrap_or(usize::MAX);
    let token = asked
        .query
        .get("continue")
        .filter(|t| !t.is_empty())
        .map(read_token)
        .transpose()?;
    let store = cluster.read();
    let exact = asked.query.get("resourceVersionMatch") == Some("Exact");
    if exact && asked.query.number("resourceVersion") != Some(store.version()) {
        return Err(ApiError::expired(
            "The provided resource version is no longer available; list again without it",
        ));
    }
    // Pages after the first carry the first one's version, so that a watch from it misses nothing.
    let version = token
        .as_ref()
        .map_or_else(|| store.version().to_string(), |(version, ..)| version.clone());
    let after = token
        .as_ref()
        .map(|(_, namespace, name)| (namespace.as_str(), name.as_str()));
    let mut matching = store
        .objects_of(&at.kind, at.namespace.as_deref(), after)
        .map(|(key, object)| (key, present_shared(&at.kind, object)))
        .filter(|(_, object)| labels.matches(object) && fields.matches(object));
    let mut objects = Vec::new();
    let mut last = None;
    for (key, object) in matching.by_ref().take(limit) {
        objects.push(object);
        last = Some(key);
    }
    let next = match (matching.next(), last) {
        (Some(_), Some(key)) => {
            let token = json!([version, key.namespace, key.name]).to_string();
            Some(URL_SAFE_NO_PAD.encode(token))
        }
        _ => None,
    };
    Ok(Page {
        objects,
        version,
        next,
    })
}

/// A stored object as a kind presents it, without a copy where there is nothing to change.
pub(crate) fn present_shared(kind: &Kind, object: &Arc<Value>) -> Arc<Value> {
    match convert::present(kind, object) {
        std::borrow::Cow::Borrowed(_) => object.clone(),
        std::borrow::Cow::Owned(object) => Arc::new(object),
    }
}

fn list(cluster: &LocalCluster, asked: &Asked, at: &At) -> Result<Response<ApiBody>, ApiError> {
    let page = page(cluster, asked, at)?;
    let mut metadata = json!({"resourceVersion": page.version});
    if let Some(next) = page.next {
        metadata["continue"] = json!(next);
    }
    if let Some(include) = asked.table() {
        let objects: Vec<&Value> = page.objects.iter().map(|o| &**o).collect();
        let table = table::table(&at.kind, &objects, metadata, include, Timestamp::now(), true);
        return Ok(respond::json(StatusCode::OK, &table));
    }
    let head = json!({"kind": format!("{}List", at.kind.kind), "apiVersion": at.kind.api_version(), "metadata": metadata});
    let mut body = head.to_string();
    body.pop();
    body.push_str(",\"items\":[");
    for (i, object) in page.objects.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        body.push_str(&object.to_string());
    }
    body.push_str("]}");
    Ok(respond::with_type(
        StatusCode::OK,
        "application/json",
        respond::full(body),
    ))
}

fn options(asked: &Asked) -> Result<WriteOptions, ApiError> {
    Ok(WriteOptions {
        manager: asked.manager(),
        validation: asked.query.validation()?,
        dry_run: asked.query.dry_run()?,
    })
}

fn written(planned: &Planned) -> Response<ApiBody> {
    let code = if planned.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = respond::json(code, &planned.object);
    respond::warn(&mut response, &planned.warnings);
    response
}

async fn create(cluster: Arc<LocalCluster>, asked: Asked, at: At) -> Result<Response<ApiBody>, ApiError> {
    let body = asked.document()?;
    if at.kind.namespaced && at.namespace.is_none() {
        return Err(ApiError::bad_request(
            "an empty namespace may not be set during creation",
        ));
    }
    let plan = move |store: &Store, ctx: &store::Context<'_>| store::create(store, at.target(), body, ctx);
    Ok(written(&cluster.write(options(&asked)?, plan).await?))
}

async fn update(cluster: Arc<LocalCluster>, asked: Asked, at: At) -> Result<Response<ApiBody>, ApiError> {
    let body = asked.document()?;
    let plan = move |store: &Store, ctx: &store::Context<'_>| store::update(store, at.target(), body, ctx);
    Ok(written(&cluster.write(options(&asked)?, plan).await?))
}

async fn patch(cluster: Arc<LocalCluster>, asked: Asked, at: At) -> Result<Response<ApiBody>, ApiError> {
    let Some(kind) = PatchKind::from_content_type(&asked.content_type) else {
        let words = format!(
            "the content type {:?} is no patch; give application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json or application/apply-patch+yaml",
            asked.content_type
        );
        return Err(ApiError::new(415, "UnsupportedMediaType", words));
    };
    let body = asked.document()?;
    let mut options = options(&asked)?;
    let force = asked.query.flag("force");
    if kind == PatchKind::Apply && asked.query.get("fieldManager").is_none() {
        options.manager = String::new(); // it must be named
    }
    let plan = move |store: &Store, ctx: &store::Context<'_>| match kind {
        PatchKind::Apply => store::apply(store, at.target(), body, force, ctx),
        kind => store::patch(store, at.target(), kind, &body, ctx),
    };
    Ok(written(&cluster.write(options, plan).await?))
}

/// What a deletion is asked with: the body's options over the query's.
fn delete_options(asked: &Asked) -> Result<DeleteOptions, ApiError> {
    let body = if asked.body.is_empty() {
        Value::Null
    } else {
        asked.document()?
    };
    let mut options = DeleteOptions::from_body(&body);
    options.grace = options
        .grace
        .or_else(|| asked.query.get("gracePeriodSeconds").and_then(|g| g.parse().ok()));
    options.propagation = options
        .propagation
        .or_else(|| asked.query.get("propagationPolicy").map(str::to_owned));
    options.dry_run |= asked.query.dry_run()?;
    Ok(options)
}

async fn delete(cluster: Arc<LocalCluster>, asked: Asked, at: At) -> Result<Response<ApiBody>, ApiError> {
    let wanted = delete_options(&asked)?;
    let options = WriteOptions {
        dry_run: wanted.dry_run,
        ..options(&asked)?
    };
    let at = Arc::new(at);
    let place = at.clone();
    let planned = cluster
        .clone()
        .write(options, move |store, ctx| {
            store::delete(store, place.target(), &wanted, ctx)
        })
        .await?;
    // Pods and Services are shown as they were; others only while something holds them.
    let grace = planned.object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(0);
    let held = grace > 0 || planned.object.pointer("/metadata/finalizers").is_some();
    let shown =
        at.kind.group.is_empty() && matches!(at.kind.kind.as_str(), "Pod" | "Service" | "ServiceAccount");
    if held || shown || cluster.object(&at.kind, at.target().namespace, &at.name).is_ok() {
        return Ok(respond::json(StatusCode::OK, &planned.object));
    }
    let mut details =
        json!({"name": at.name, "kind": at.kind.plural, "uid": planned.object["metadata"]["uid"]});
    if !at.kind.group.is_empty() {
        details["group"] = json!(at.kind.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(respond::json(StatusCode::OK, &status))
}

async fn delete_collection(
    cluster: Arc<LocalCluster>,
    asked: Asked,
    at: At,
) -> Result<Response<ApiBody>, ApiError> {
    if at.kind.namespaced && at.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let wanted = delete_options(&asked)?;
    let options = WriteOptions {
        dry_run: wanted.dry_run,
        ..options(&asked)?
    };
    let found = page(&cluster, &asked, &at)?;
    for object in &found.objects {
        let name = store::text(object, "/metadata/name").to_owned();
        let (kind, namespace, wanted) = (
            at.kind.clone(),
            at.namespace.clone().unwrap_or_default(),
            wanted.clone(),
        );
        let plan = move |store: &Store, ctx: &store::Context<'_>| {
            let target = Target {
                kind: &kind,
                namespace: &namespace,
                name: &name,
                subresource: "",
            };
            store::delete(store, target, &wanted, ctx)
        };
        match cluster.clone().write(options.clone(), plan).await {
            Err(error) if error.code != 404 => return Err(error),
            _ => {}
        }
    }
    tracing::debug!(kind = %qualified(&at.kind.group, &at.kind.plural), count = found.objects.len(), "a collection was deleted");
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(respond::json(StatusCode::OK, &status))
}
