//! Requests and answers: from a path and a verb to an operation on the store.

mod accounts;
mod discovery;
mod logs;
mod objects;
mod openapi;
pub(crate) mod path;
mod protobuf;
mod respond;
mod watch;

use crate::{cluster::LocalCluster, error::ApiError, table::Include};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use path::{Place, Query};
pub(crate) use respond::{ApiBody, error_response};
use serde_json::Value;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// The largest request.
const BODY_BYTES: usize = 3 << 20;

/// The API as a tower service; the same for a client in process and for a connection.
#[derive(Clone)]
pub(crate) struct ApiService {
    cluster: Arc<LocalCluster>,
}

impl ApiService {
    pub(crate) fn in_process(cluster: Arc<LocalCluster>) -> Self {
        Self { cluster }
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let cluster = self.cluster.clone();
        Box::pin(async move { Ok(answer(cluster, request).await) })
    }
}

/// A request, taken apart.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) place: Place,
    pub(crate) query: Query,
    pub(crate) accept: String,
    pub(crate) content_type: String,
    pub(crate) user_agent: String,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The body as an object, from JSON, YAML, or the protobuf that kubectl insists on.
    pub(crate) fn document(&self) -> Result<Value, ApiError> {
        if self.content_type.starts_with(protobuf::MEDIA_TYPE) {
            return protobuf::decode(&self.body);
        }
        let yaml = self.content_type.contains("yaml");
        if !yaml {
            let parsed = serde_json::from_slice(&self.body);
            return parsed.map_err(|e| ApiError::bad_request(format!("the body is not JSON: {e}")));
        }
        let text = std::str::from_utf8(&self.body)
            .map_err(|e| ApiError::bad_request(format!("the body is not UTF-8: {e}")))?;
        crate::files::decode(text).map_err(|e| ApiError::bad_request(format!("the body is not YAML: {e}")))
    }

    /// Whether the client wants rows and columns, and what beside each row.
    pub(crate) fn table(&self) -> Option<Include> {
        let wanted = self
            .accept
            .split(',')
            .any(|one| one.contains("as=Table") && one.contains("v=v1") && !one.contains("v1beta1"));
        wanted.then(|| match self.query.get("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        })
    }

    /// Who writes: named by the client, else its program's name.
    pub(crate) fn manager(&self) -> String {
        let named = self.query.get("fieldManager").filter(|m| !m.is_empty());
        let program = || self.user_agent.split('/').next().unwrap_or("");
        named.unwrap_or_else(program).chars().take(128).collect()
    }
}

async fn answer<B>(cluster: Arc<LocalCluster>, request: Request<B>) -> Response<ApiBody>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let header = |name: http::HeaderName| {
        let values = head.headers.get_all(name);
        let texts: Vec<&str> = values.iter().filter_map(|v| v.to_str().ok()).collect();
        texts.join(",")
    };
    let (accept, content_type, user_agent) = (
        header(http::header::ACCEPT),
        header(http::header::CONTENT_TYPE),
        header(http::header::USER_AGENT),
    );
    let body = match Limited::new(body, BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let words = format!("Request entity too large: limit is {BODY_BYTES}");
            return error_response(&ApiError::new(413, "RequestEntityTooLarge", words));
        }
        Err(error) => {
            return error_response(&ApiError::bad_request(format!(
                "the body could not be read: {error}"
            )));
        }
    };
    let asked = match Place::parse(head.uri.path()) {
        Ok(place) => Asked {
            method: head.method,
            place,
            query: Query::parse(head.uri.query().unwrap_or("")),
            accept,
            content_type,
            user_agent,
            body,
        },
        Err(error) => return error_response(&error),
    };
    route(cluster, asked)
        .await
        .unwrap_or_else(|error| error_response(&error))
}

async fn route(cluster: Arc<LocalCluster>, asked: Asked) -> Result<Response<ApiBody>, ApiError> {
    match &asked.place {
        Place::Document(segments) => {
            if asked.method != Method::GET {
                return Err(ApiError::method_not_allowed());
            }
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            if let ["openapi", "v3", rest @ ..] = segments.as_slice() {
                return openapi::answer(&cluster, rest);
            }
            if segments == ["openapi", "v2"] {
                return Ok(openapi::answer_v2(&asked.accept));
            }
            discovery::answer(&cluster, &segments, &asked.accept)
        }
        Place::Resource(_) => objects::answer(cluster, asked).await,
    }
}
