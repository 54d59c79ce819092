//! Questions of collectors that the leader answers, and the leader's assignment for those who follow it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};

use super::body::{Answer, Media, answer as plain, empty, packed};
use super::routes::{Asked, MAX_SAMPLES, Query};
use crate::peers::ASKED_BY;
use crate::shared::Shared;

/// Headers of the leader's answer that a collector is to see.
const PASSED: [header::HeaderName; 3] = [
    header::ETAG,
    header::WARNING,
    header::HeaderName::from_static("x-karez-withheld-jobs"),
];

/// Asks the leader, where another leads. The question comes back where this allocator is to answer by itself.
pub(super) async fn on(
    shared: &Shared,
    request: Request<Asked>,
    secure: bool,
    wait: Option<Duration>,
) -> Result<Answer, Request<Asked>> {
    let Some(peers) = &shared.peers else {
        return Err(request);
    };
    let asked_by_peer = request.headers().contains_key(ASKED_BY)
        || request
            .uri()
            .query()
            .is_some_and(|query| query == ASKED_BY.as_str());
    if asked_by_peer {
        // Two that each take the other for the leader would ask each other without end.
        return match shared.leads() {
            true => Err(request),
            false => Ok(empty(StatusCode::MISDIRECTED_REQUEST)),
        };
    }
    let Some(leader) = shared.leader() else {
        return Err(request);
    };
    let path = match request.uri().path_and_query() {
        Some(path) => path.as_str().to_owned(),
        None => return Err(request),
    };
    if request.method() == Method::POST {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_SAMPLES).collect().await else {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, Media::Text, "too long\n"));
        };
        let body: Bytes = body.to_bytes();
        return match peers.tell(&leader, secure, parts.uri.path(), body.to_vec()).await {
            Ok(status) if !status.is_server_error() && status != StatusCode::MISDIRECTED_REQUEST => {
                Ok(empty(status))
            }
            _ => Err(Request::from_parts(parts, Either::Right(Full::new(body)))),
        };
    }
    let headers = request.headers().clone();
    let asked = peers
        .ask(&leader, secure, &path, &headers, wait.unwrap_or(Duration::ZERO))
        .await;
    match asked {
        Ok(answer) => Ok(shown(&headers, answer)),
        Err(error) => {
            tracing::debug!(%error, "the leader gives no answer; this allocator answers by itself");
            Err(request)
        }
    }
}

/// The leader's answer as this allocator's.
fn shown(asked: &HeaderMap, answer: karez_scrape::client::Answer) -> Answer {
    let mut shown = match answer.status {
        StatusCode::OK => packed(asked, Media::Json, answer.body),
        status if answer.body.is_empty() => empty(status),
        status => plain(status, Media::Text, answer.body),
    };
    for name in PASSED {
        if let Some(value) = answer.headers.get(&name) {
            shown.headers_mut().insert(name, value.clone());
        }
    }
    shown
}

/// Who has what, for those who follow: what changed since a number, as soon as something did, or everything.
pub(super) async fn assignment(shared: &Arc<Shared>, query: &Query) -> Answer {
    if !shared.leads() {
        return empty(StatusCode::MISDIRECTED_REQUEST);
    }
    let since = query.get("since").and_then(|since| since.split_once('-'));
    let since = since.filter(|(epoch, _)| *epoch == shared.epoch);
    let since: Option<u64> = since.and_then(|(_, number)| number.parse().ok());
    if let (Some(since), Some(wait)) = (since, query.wait()) {
        let mut revision = shared.revision.subscribe();
        let until = tokio::time::Instant::now() + wait;
        while shared.read().next_change() == Some(since) {
            if tokio::time::timeout_at(until, revision.changed()).await.is_err() {
                break;
            }
        }
    }
    let Some(copy) = shared.read().copy(since) else {
        return empty(StatusCode::NOT_FOUND);
    };
    let mut answer = plain(StatusCode::OK, Media::Bytes, copy.to_bytes());
    if let Ok(next) = http::HeaderValue::from_str(&format!("\"{}-{}\"", shared.epoch, copy.next)) {
        answer.headers_mut().insert(header::ETAG, next);
    }
    answer
}
