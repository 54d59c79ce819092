//! What is asked and what is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::body::{Answer, Media, answer as plain, empty, has, packed, tag, tagged, takes_gzip};
use super::{debug, lists, page, passed};
use crate::shared::{Said, Shared};

/// The body of a question.
pub(super) type Asked = Either<Incoming, Full<Bytes>>;

/// The largest body that a collector may send.
pub(super) const MAX_SAMPLES: usize = 32 << 20;
/// The longest that an answer may be held back.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// At the start an answer is held back so long for what there is to be known.
const STARTING: Duration = Duration::from_secs(4);
/// Explained at once.
const MAX_EXPLAINED: usize = 100;

/// A query, unescaped; of a repeated key the first counts.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(text: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Query(pairs.into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `wait=30s`, or `30`.
    pub(super) fn wait(&self) -> Option<Duration> {
        let text = self.get("wait")?;
        let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_WAIT))
    }
}

/// A part of a path, as a query escapes it.
fn unescaped(part: &str) -> String {
    let key = url::form_urlencoded::parse(part.as_bytes()).next();
    key.map(|(key, _)| key.into_owned()).unwrap_or_default()
}

/// Answers a request.
pub(crate) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>, secure: bool) -> Answer {
    let begun = Instant::now();
    let request = request.map(Asked::Left);
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = Query::of(request.uri().query());
    let get = request.method() == Method::GET || request.method() == Method::HEAD;
    let by_collectors = matches!(parts.as_slice(), ["scrape_configs"] if !debug::wants_html(request.headers()))
        || matches!(parts.as_slice(), ["collectors", ..])
        || (matches!(parts.as_slice(), ["jobs", _, "targets"]) && query.get("collector_id").is_some());
    let request = match by_collectors {
        true => match passed::on(shared, request, secure, query.wait()).await {
            Ok(answer) => return answer,
            Err(request) => request,
        },
        false => request,
    };
    let listed = matches!(
        parts.as_slice(),
        ["scrape_configs"] | ["jobs", ..] | ["collectors", _, "changes"]
    );
    if listed && !shared.is_warm(STARTING).await {
        // What is not known yet would be taken for gone. This is no YAML of jobs, whoever reads it without a look at the status.
        let message = "starting: not all of the targets and collectors are known yet\n";
        return plain(StatusCode::SERVICE_UNAVAILABLE, Media::Text, message);
    }
    let (route, answer) = match (get, parts.as_slice()) {
        (true, [name @ ("scrape_configs" | "jobs")]) if debug::wants_html(request.headers()) => {
            ("/html", debug::shown(shared, name, request.headers(), secure))
        }
        (true, ["debug", name]) => match debug::page(shared, name, &query, request.headers(), secure) {
            Some(answer) => ("/debug", answer),
            None => ("", nothing()),
        },
        (true, ["scrape_configs"]) => ("/scrape_configs", configs(shared, request.headers(), secure)),
        (true, ["jobs"]) => ("/jobs", jobs(shared, request.headers())),
        (true, ["jobs", job, "targets"]) => {
            let job = unescaped(job);
            (
                "/jobs/:job_id/targets",
                targets(shared, request.headers(), &job, &query).await,
            )
        }
        (true, ["collectors", collector, "changes"]) => (
            "/collectors/:collector_id/changes",
            changes(shared, &unescaped(collector), &query).await,
        ),
        (false, ["collectors", collector, "samples"]) if request.method() == Method::POST => (
            "/collectors/:collector_id/samples",
            samples(shared, &unescaped(collector), request).await,
        ),
        (true, ["peers", "assignment"]) => ("/peers/assignment", passed::assignment(shared, &query).await),
        (true, ["explain"]) => ("/explain", explain(shared, request.headers(), &query)),
        (true, ["livez"]) => ("/livez", empty(StatusCode::OK)),
        (true, ["readyz"]) => ("/readyz", ready(shared)),
        (true, ["metrics"]) => ("/metrics", metrics(shared, request.headers())),
        (true, [""]) => (
            "/",
            page::page(shared, query.get("q").unwrap_or_default(), request.headers()),
        ),
        _ => ("", nothing()),
    };
    if !route.is_empty() {
        shared.metrics.answered(route, begun.elapsed());
    }
    answer
}

fn nothing() -> Answer {
    plain(StatusCode::NOT_FOUND, Media::Text, "404 page not found\n")
}

fn ready(shared: &Shared) -> Answer {
    empty(match shared.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    })
}

fn configs(shared: &Shared, headers: &HeaderMap, secure: bool) -> Answer {
    let served = shared.served();
    let body = if secure { &served.secure } else { &served.plain };
    let named = tag(body.tag);
    if served.ready && has(headers, &named) {
        return tagged(empty(StatusCode::NOT_MODIFIED), &named);
    }
    let mut answer = match takes_gzip(headers) && body.packed.len() < body.text.len() {
        true => {
            let mut answer = plain(StatusCode::OK, Media::Json, body.packed.clone());
            answer
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            answer
        }
        false => plain(StatusCode::OK, Media::Json, body.text.clone()),
    };
    if !secure && !served.withheld.is_empty() {
        let message = "299 karez \"jobs that hold secrets are given over mutual TLS only\"";
        answer
            .headers_mut()
            .insert(header::WARNING, HeaderValue::from_static(message));
        let count = HeaderValue::from(served.withheld.len());
        answer.headers_mut().insert("x-karez-withheld-jobs", count);
    }
    tagged(answer, &named)
}

fn jobs(shared: &Shared, headers: &HeaderMap) -> Answer {
    packed(headers, Media::Json, lists::jobs(&shared.read()))
}

async fn targets(shared: &Arc<Shared>, headers: &HeaderMap, job: &str, query: &Query) -> Answer {
    let Some(collector) = query.get("collector_id") else {
        return packed(headers, Media::Json, lists::of_job(&shared.read(), job));
    };
    let current = || tag(shared.read().tag(job, collector).1);
    let mut named = current();
    if has(headers, &named)
        && let Some(wait) = query.wait()
    {
        let mut revision = shared.revision.subscribe();
        // What changed between the look and the subscription is seen at once.
        named = current();
        let until = tokio::time::Instant::now() + wait;
        while has(headers, &named) {
            match tokio::time::timeout_at(until, revision.changed()).await {
                Ok(Ok(())) => named = current(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
    }
    if has(headers, &named) {
        return tagged(empty(StatusCode::NOT_MODIFIED), &named);
    }
    let mut out = Vec::new();
    let (named, revision) = {
        let allocation = shared.read();
        let (count, sum) = allocation.tag(job, collector);
        out.reserve(count * 256);
        lists::of_collector(&allocation, job, collector, &mut out);
        (tag(sum), allocation.revision())
    };
    out.push(b'\n');
    shared
        .say(Said::Asked(job.to_owned(), collector.to_owned(), revision))
        .await;
    tagged(packed(headers, Media::Json, out), &named)
}

/// What changed for a collector since it asked last, at once or when something does. By asking for what came after,
/// it says that it has what it was told before.
async fn changes(shared: &Arc<Shared>, collector: &str, query: &Query) -> Answer {
    let since = query.get("since").and_then(|since| since.split_once('-'));
    let since = since.filter(|(epoch, _)| *epoch == shared.epoch);
    let since: Option<u64> = since.and_then(|(_, revision)| revision.parse().ok());
    if let Some(revision) = since {
        shared.say(Said::Has(collector.to_owned(), revision)).await;
    }
    let until = tokio::time::Instant::now() + query.wait().unwrap_or(Duration::ZERO);
    let known = query.get("configs").unwrap_or_default();
    let mut seen = shared.revision.subscribe();
    loop {
        let served = shared.served();
        let configs = tag(served.plain.tag ^ served.secure.tag.rotate_left(1));
        let (revision, jobs, knows) = {
            let allocation = shared.read();
            let jobs = match since {
                Some(revision) => allocation.changed_since(collector, revision),
                // Another allocator may have given it lists that it does not have here.
                None => allocation.job_names().collect(),
            };
            let jobs: Vec<String> = jobs.into_iter().map(str::to_owned).collect();
            (allocation.revision(), jobs, allocation.knows_collector(collector))
        };
        let configs = configs.trim_matches('"');
        let news = since.is_none() || !jobs.is_empty() || configs != known;
        if news || tokio::time::timeout_at(until, seen.changed()).await.is_err() {
            let answer = json!({
                "since": format!("{}-{revision}", shared.epoch),
                "configs": configs,
                "jobs": jobs,
                "known": knows,
            });
            return plain(StatusCode::OK, Media::Json, format!("{answer}\n"));
        }
    }
}

/// Samples that scrapes gave: `{"<identity in hexadecimal>": count}`.
async fn samples(shared: &Arc<Shared>, collector: &str, request: Request<Asked>) -> Answer {
    if !shared.read().knows_collector(collector) {
        return plain(StatusCode::NOT_FOUND, Media::Text, "no such collector\n");
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_SAMPLES).collect().await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, Media::Text, "too long\n");
    };
    let read: Result<std::collections::HashMap<String, u32>, _> = serde_json::from_slice(&body.to_bytes());
    let Ok(read) = read else {
        let mend = "write {\"<identity in hexadecimal>\": samples, …}\n";
        return plain(StatusCode::BAD_REQUEST, Media::Text, mend);
    };
    let samples = read.into_iter();
    let samples =
        samples.filter_map(|(identity, count)| Some((u64::from_str_radix(&identity, 16).ok()?, count)));
    shared.say(Said::Samples(samples.collect())).await;
    empty(StatusCode::NO_CONTENT)
}

fn explain(shared: &Shared, headers: &HeaderMap, query: &Query) -> Answer {
    let Some(asked) = query.get("target").filter(|asked| !asked.is_empty()) else {
        let mend = "name a target: /explain?target=HOST:PORT, an identity or the value of a label\n";
        return plain(StatusCode::BAD_REQUEST, Media::Text, mend);
    };
    let explained = shared.read().explain(asked, MAX_EXPLAINED);
    let mut text = serde_json::to_vec(&explained).unwrap_or_default();
    text.push(b'\n');
    packed(headers, Media::Json, text)
}

fn metrics(shared: &Shared, headers: &HeaderMap) -> Answer {
    let text = shared.figures();
    packed(headers, Media::Metrics, text.into_bytes())
}
