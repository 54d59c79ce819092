//! Jaeger's query API over a [`TraceStore`].

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::Html;
use axum::routing::{any, get, post};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::json::{DependencyJson, Envelope, OperationJson, Problem, TraceJson};
use super::params::{Params, Wanted, trace_id};
use super::v3;
use crate::extensions::jaeger_storage::{TraceStore, search};

/// What is at `/` until the console is there.
const PAGE: &str = include_str!("page.html");
/// Queries that are worked on at once; others wait their turn.
const MAX_QUERIES: usize = 8;
const NOT_FOUND: &str = "trace not found";

/// The API's routes, below `base_path` (empty or `/` for none).
pub fn router(store: Arc<TraceStore>, base_path: &str) -> Router {
    let api = Router::new()
        .route("/services", get(services))
        .route("/services/{service}/operations", get(service_operations))
        .route("/operations", get(operations))
        .route("/traces", get(traces))
        .route("/traces/{id}", get(trace))
        .route("/dependencies", get(dependencies))
        .route("/archive/{id}", post(archive))
        .route("/metrics/{*what}", get(metrics))
        .nest("/v3", v3::router())
        .fallback(any(unknown));
    let all = Router::new()
        .nest("/api", api)
        .fallback(get(page))
        .with_state(store);
    match base_path.trim_matches('/') {
        "" => all,
        base => Router::new().nest(&format!("/{base}"), all),
    }
}

type Store = State<Arc<TraceStore>>;

async fn services(State(store): Store, RawQuery(query): RawQuery) -> Response<Body> {
    let data = store.services();
    answer(&Params::new(query.as_deref()), data.len(), data)
}

async fn operations(State(store): Store, RawQuery(query): RawQuery) -> Response<Body> {
    let params = Params::new(query.as_deref());
    let service = match params.required("service") {
        Ok(service) => service,
        Err(message) => return failure(StatusCode::BAD_REQUEST, message),
    };
    let kind = params.first("spanKind");
    let found = store
        .operations(service)
        .into_iter()
        .filter(|operation| kind.is_none_or(|kind| operation.kind == kind));
    let data: Vec<_> = found
        .map(|o| OperationJson {
            name: o.name,
            span_kind: o.kind,
        })
        .collect();
    answer(&params, data.len(), data)
}

async fn service_operations(
    State(store): Store,
    Path(service): Path<String>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let mut data: Vec<String> = store
        .operations(&service)
        .into_iter()
        .map(|operation| operation.name)
        .collect();
    data.dedup();
    answer(&Params::new(query.as_deref()), data.len(), data)
}

async fn traces(State(store): Store, RawQuery(query): RawQuery) -> Response<Body> {
    let params = Params::new(query.as_deref());
    let wanted = match params.search(now()) {
        Ok(wanted) => wanted,
        Err(message) => return failure(StatusCode::BAD_REQUEST, message),
    };
    off_the_reactor(move || {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        match wanted {
            Wanted::Matching(query) => found = search::find(&store, &query),
            Wanted::ById(ids) => ids.iter().for_each(|id| match store.trace(id) {
                Some(trace) => found.push(trace),
                None => missing.push(Problem {
                    code: None,
                    msg: NOT_FOUND.to_owned(),
                    trace_id: Some(hex::encode(id)),
                }),
            }),
        }
        let data: Vec<_> = found.iter().map(TraceJson::new).collect();
        let errors = (!missing.is_empty()).then_some(missing);
        success(
            &params,
            &Envelope {
                data,
                total: 0,
                limit: 0,
                offset: 0,
                errors,
            },
        )
    })
    .await
}

async fn trace(State(store): Store, Path(id): Path<String>, RawQuery(query): RawQuery) -> Response<Body> {
    let id = match trace_id(&id) {
        Ok(id) => id,
        Err(message) => return failure(StatusCode::BAD_REQUEST, message),
    };
    off_the_reactor(move || match store.trace(&id) {
        Some(trace) => answer(&Params::new(query.as_deref()), 0, vec![TraceJson::new(&trace)]),
        None => failure(StatusCode::NOT_FOUND, NOT_FOUND.to_owned()),
    })
    .await
}

async fn dependencies(State(store): Store, RawQuery(query): RawQuery) -> Response<Body> {
    let params = Params::new(query.as_deref());
    let (start, end) = match params.graph(now()) {
        Ok(span) => span,
        Err(message) => return failure(StatusCode::BAD_REQUEST, message),
    };
    off_the_reactor(move || {
        let service = params.first("service");
        let found = search::dependencies(&store, start, end).into_iter();
        let data: Vec<_> = found
            .filter(|found| service.is_none_or(|name| found.parent == name || found.child == name))
            .map(|found| DependencyJson {
                parent: found.parent,
                child: found.child,
                call_count: found.calls,
            })
            .collect();
        answer(&params, 0, data)
    })
    .await
}

async fn archive() -> Response<Body> {
    failure(
        StatusCode::INTERNAL_SERVER_ERROR,
        "archive span storage was not configured".to_owned(),
    )
}

async fn metrics() -> Response<Body> {
    failure(
        StatusCode::NOT_IMPLEMENTED,
        "metrics querying is currently disabled".to_owned(),
    )
}

async fn unknown() -> Response<Body> {
    text(StatusCode::NOT_FOUND, b"404 page not found\n".to_vec())
}

async fn page() -> Html<&'static str> {
    Html(PAGE)
}

/// Decoding many spans takes a while and much memory: not on a thread that serves sockets, and not for many at once.
pub(super) async fn off_the_reactor(
    work: impl FnOnce() -> Response<Body> + Send + 'static,
) -> Response<Body> {
    static SLOTS: Semaphore = Semaphore::const_new(MAX_QUERIES);
    let slot = SLOTS.acquire().await;
    let done = tokio::task::spawn_blocking(work).await;
    drop(slot);
    done.unwrap_or_else(|_| {
        failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the query was given up".to_owned(),
        )
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn answer<T: Serialize>(params: &Params, total: usize, data: T) -> Response<Body> {
    success(
        params,
        &Envelope {
            data,
            total,
            limit: 0,
            offset: 0,
            errors: None,
        },
    )
}

fn success<T: Serialize>(params: &Params, envelope: &Envelope<T>) -> Response<Body> {
    let mut body = Vec::new();
    let written = if params.pretty() {
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        envelope.serialize(&mut serde_json::Serializer::with_formatter(&mut body, indent))
    } else {
        serde_json::to_writer(&mut body, envelope)
    };
    if let Err(error) = written {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    }
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Errors are the same envelope, but sent as Go's `http.Error` sends them.
fn failure(status: StatusCode, message: String) -> Response<Body> {
    let problem = Problem {
        code: Some(status.as_u16()),
        msg: message,
        trace_id: None,
    };
    let envelope = Envelope {
        data: (),
        total: 0,
        limit: 0,
        offset: 0,
        errors: Some(vec![problem]),
    };
    let mut body = serde_json::to_vec(&envelope).unwrap_or_default();
    body.push(b'\n');
    text(status, body)
}

fn text(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
