//! Jaeger's API v3: the same questions, answered in OTLP's JSON.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use serde_json::{Value, json};

use super::api::off_the_reactor;
use super::params::{Params, go_duration, trace_id};
use crate::extensions::jaeger_storage::search::{self, Query};
use crate::extensions::jaeger_storage::{StoredTrace, TraceStore};

const LIMIT: usize = 100;

type Store = State<Arc<TraceStore>>;

/// The routes below `/api/v3`.
pub(super) fn router() -> Router<Arc<TraceStore>> {
    Router::new()
        .route("/services", get(services))
        .route("/operations", get(operations))
        .route("/traces", get(traces))
        .route("/traces/{id}", get(trace))
}

async fn services(State(store): Store) -> Response<Body> {
    answer(StatusCode::OK, &json!({ "services": store.services() }))
}

async fn operations(State(store): Store, RawQuery(query): RawQuery) -> Response<Body> {
    let params = Params::new(query.as_deref());
    let Some(service) = params.first("service") else {
        return failure(
            StatusCode::BAD_REQUEST,
            "malformed parameter service: must not be empty",
        );
    };
    let kind = params.first("span_kind");
    let found = store
        .operations(service)
        .into_iter()
        .filter(|found| kind.is_none_or(|kind| found.kind == kind));
    let operations: Vec<Value> = found
        .map(|found| json!({ "name": found.name, "spanKind": found.kind }))
        .collect();
    answer(StatusCode::OK, &json!({ "operations": operations }))
}

async fn traces(State(store): Store, RawQuery(query): RawQuery) -> Response<Body> {
    let query = match search_query(&Params::new(query.as_deref())) {
        Ok(query) => query,
        Err(message) => return failure(StatusCode::BAD_REQUEST, &message),
    };
    off_the_reactor(move || {
        let found = search::find(&store, &query);
        match found.is_empty() {
            true => failure(StatusCode::NOT_FOUND, "No traces found"),
            false => answer(StatusCode::OK, &result(&found)),
        }
    })
    .await
}

async fn trace(State(store): Store, Path(id): Path<String>) -> Response<Body> {
    match trace_id(&id) {
        Err(message) => failure(
            StatusCode::BAD_REQUEST,
            &format!("malformed parameter trace_id: {message}"),
        ),
        Ok(id) => {
            off_the_reactor(move || match store.trace(&id) {
                None => failure(StatusCode::NOT_FOUND, "trace not found"),
                Some(trace) => answer(StatusCode::OK, &result(&[trace])),
            })
            .await
        }
    }
}

fn search_query(params: &Params) -> Result<Query, String> {
    let time = |name: &str| {
        let text = params
            .first(name)
            .ok_or_else(|| format!("malformed parameter {name}: it is required"))?;
        let at: Timestamp = text
            .parse()
            .map_err(|error| format!("malformed parameter {name}: {error}"))?;
        Ok::<u64, String>(u64::try_from(at.as_nanosecond()).unwrap_or(0))
    };
    let duration = |name: &str| match params.first(name) {
        None => Ok(None),
        Some(text) => go_duration(text)
            .map(Some)
            .ok_or_else(|| format!("malformed parameter {name}: {text:?}")),
    };
    let limit = match params
        .first("query.num_traces")
        .or(params.first("query.search_depth"))
    {
        None => LIMIT,
        Some(text) => text
            .parse()
            .map_err(|_| format!("malformed parameter query.num_traces: {text:?}"))?,
    };
    Ok(Query {
        service: params.first("query.service_name").map(str::to_owned),
        operation: params.first("query.operation_name").map(str::to_owned),
        start: time("query.start_time_min")?,
        end: time("query.start_time_max")?,
        min_duration: duration("query.duration_min")?,
        max_duration: duration("query.duration_max")?,
        limit: if limit == 0 { LIMIT } else { limit },
        ..Query::default()
    })
}

fn result(traces: &[StoredTrace]) -> Value {
    let spans = traces.iter().flat_map(|trace| &trace.spans);
    let mut all: Vec<ResourceSpans> = Vec::new();
    for (resource, scope, span) in spans.map(|span| span.otlp()) {
        let same = all
            .last_mut()
            .filter(|last| last.resource.as_ref() == Some(&resource));
        let group = match same {
            Some(group) => group,
            None => {
                all.push(ResourceSpans {
                    resource: Some(resource),
                    ..ResourceSpans::default()
                });
                let last = all.len() - 1;
                &mut all[last]
            }
        };
        match group
            .scope_spans
            .iter_mut()
            .find(|known| known.scope.as_ref() == Some(&scope))
        {
            Some(known) => known.spans.push(span),
            None => {
                group.scope_spans.push(ScopeSpans {
                    scope: Some(scope),
                    spans: vec![span],
                    ..ScopeSpans::default()
                });
            }
        }
    }
    json!({ "result": { "resourceSpans": all } })
}

fn failure(status: StatusCode, message: &str) -> Response<Body> {
    answer(
        status,
        &json!({ "error": { "httpCode": status.as_u16(), "message": message } }),
    )
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
