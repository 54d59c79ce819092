//! Watches: newline-separated events from a version on.

use super::{
    Asked,
    objects::{self, At, Page, present_shared},
    respond::{self, ApiBody},
};
use crate::{
    cluster::LocalCluster,
    error::ApiError,
    kinds::Kind,
    selector::{Fields, Labels},
    store::{Event, EventType, Store},
    table::{self, Include},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);
/// Events in one chunk; a slow reader holds no more than this.
const CHUNK: usize = 256;

/// What is watched, whatever happens.
struct Scope {
    kind: Arc<Kind>,
    namespace: Option<String>,
    name: String,
    labels: Labels,
    fields: Fields,
}

struct Watch {
    cluster: Arc<LocalCluster>,
    changes: watch::Receiver<u64>,
    scope: Scope,
    /// All events up to here were sent or do not concern the client.
    last: u64,
    /// Rows instead of objects; columns come with the first.
    table: Option<Include>,
    header: bool,
    /// What is sent before anything is waited for.
    first: Option<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    until: Instant,
    over: bool,
}

pub(crate) fn answer(
    cluster: Arc<LocalCluster>,
    asked: &Asked,
    at: At,
) -> Result<Response<ApiBody>, ApiError> {
    let scope = Scope {
        kind: at.kind.clone(),
        namespace: at.namespace.clone(),
        name: at.name.clone(),
        labels: asked.query.labels()?,
        fields: asked.query.fields(&at.kind)?,
    };
    let from = asked.query.get("resourceVersion").unwrap_or("");
    let bookmarks = asked.query.flag("allowWatchBookmarks");
    let initial = asked.query.flag("sendInitialEvents");
    let changes = cluster.changes();
    let (table, mut header) = (asked.table(), true);
    let (first, last) = if initial || from.is_empty() || from == "0" {
        let page = objects::page(
            &cluster,
            asked,
            &At {
                name: String::new(),
                ..at
            },
        )?;
        (
            Some(scope.everything(&page, table, &mut header, initial)),
            page.version.parse().unwrap_or(0),
        )
    } else {
        (None, resume(&cluster, from)?)
    };
    let first = first.filter(|lines| !lines.is_empty());
    let limit = asked
        .query
        .number("timeoutSeconds")
        .filter(|s| *s > 0)
        .map_or(LONGEST, Duration::from_secs)
        .min(LONGEST);
    let now = Instant::now();
    let watch = Watch {
        cluster,
        changes,
        scope,
        last,
        table,
        header,
        first,
        bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        until: now + limit,
        over: false,
    };
    let chunks = stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|chunk| (chunk, watch))
    });
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    Ok(respond::with_type(
        StatusCode::OK,
        "application/json",
        StreamBody::new(frames).boxed_unsync(),
    ))
}

/// The version a client wants to go on from, when its events are still kept.
fn resume(cluster: &LocalCluster, from: &str) -> Result<u64, ApiError> {
    let no_number =
        |_| ApiError::bad_request(format!("Invalid value: {from:?}: resourceVersion is a number"));
    let version: u64 = from.parse().map_err(no_number)?;
    let store = cluster.read();
    if version > store.version() {
        let words = format!(
            "Too large resource version: {version}, current: {}",
            store.version()
        );
        return Err(ApiError::new(504, "Timeout", words));
    }
    match store.events_after(version) {
        Some(_) => Ok(version),
        None => Err(too_old(version)),
    }
}

fn too_old(version: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {version}; list again"))
}

fn line(out: &mut Vec<u8>, kind: &str, object: &Value) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").as_bytes());
}

/// An object as a table with one row.
fn row(kind: &Kind, object: &Value, include: Include, header: &mut bool) -> Value {
    let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
    table::table(
        kind,
        &[object],
        metadata,
        include,
        Timestamp::now(),
        std::mem::take(header),
    )
}

fn bookmark(kind: &Kind, version: u64, initial: bool) -> Value {
    let mut bookmark = json!({
        "kind": kind.kind, "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
    });
    if initial {
        bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    bookmark
}

impl Scope {
    fn names(&self, object: &Value) -> bool {
        self.name.is_empty()
            || object.pointer("/metadata/name").and_then(Value::as_str) == Some(self.name.as_str())
    }

    /// All objects as they are now, and where they end when the client asked for that.
    fn everything(&self, page: &Page, table: Option<Include>, header: &mut bool, mark_end: bool) -> Bytes {
        let mut lines = Vec::new();
        for object in page.objects.iter().filter(|o| self.names(o)) {
            match table {
                Some(include) => line(&mut lines, "ADDED", &row(&self.kind, object, include, header)),
                None => line(&mut lines, "ADDED", object),
            }
        }
        if mark_end {
            line(
                &mut lines,
                "BOOKMARK",
                &bookmark(&self.kind, page.version.parse().unwrap_or(0), true),
            );
        }
        lines.into()
    }

    fn matches(&self, object: &Value) -> bool {
        self.names(object) && self.labels.matches(object) && self.fields.matches(object)
    }

    /// The event as this watch sees it: an object that comes to match is added, one that no longer does is deleted.
    fn see(&self, event: &Event, resource: &crate::store::Key) -> Option<(&'static str, Arc<Value>)> {
        let key = &event.key;
        if key.group != resource.group || key.resource != resource.resource {
            return None;
        }
        if self
            .namespace
            .as_ref()
            .is_some_and(|namespace| *namespace != key.namespace)
        {
            return None;
        }
        let object = present_shared(&self.kind, &event.object);
        let before = event.before.as_ref().map(|b| present_shared(&self.kind, b));
        let matched = before.as_ref().is_some_and(|b| self.matches(b));
        let matches = event.kind != EventType::Deleted && self.matches(&object);
        match (matched, matches) {
            (false, false) => None,
            (false, true) => Some(("ADDED", object)),
            (true, true) => Some(("MODIFIED", object)),
            (true, false) if event.kind == EventType::Deleted => Some(("DELETED", object)),
            (true, false) => {
                let mut last = before.map(|b| (*b).clone()).unwrap_or_default();
                last["metadata"]["resourceVersion"] = json!(event.version.to_string());
                Some(("DELETED", Arc::new(last)))
            }
        }
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(first) = self.first.take() {
                return Some(first);
            }
            if self.over {
                return None;
            }
            self.changes.borrow_and_update();
            if let Some(chunk) = self.catch_up() {
                return Some(chunk);
            }
            tokio::select! {
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    return Some(self.bookmark());
                }
                () = tokio::time::sleep_until(self.until) => {
                    self.over = true;
                    if self.bookmarks {
                        return Some(self.bookmark());
                    }
                }
            }
        }
    }

    /// What happened since, up to a chunk; `None` when nothing concerns this watch.
    fn catch_up(&mut self) -> Option<Bytes> {
        let cluster = self.cluster.clone();
        let store = cluster.read();
        let resource = Store::key(&self.scope.kind, "", "");
        let mut lines = Vec::new();
        let Some(events) = store.events_after(self.last) else {
            line(&mut lines, "ERROR", &too_old(self.last).status());
            self.over = true;
            return Some(lines.into());
        };
        let mut count = 0;
        for event in events {
            if let Some((kind, object)) = self.scope.see(event, &resource) {
                match self.table {
                    Some(include) => line(
                        &mut lines,
                        kind,
                        &row(&self.scope.kind, &object, include, &mut self.header),
                    ),
                    None => line(&mut lines, kind, &object),
                }
                count += 1;
            }
            self.last = event.version;
            if count >= CHUNK {
                break;
            }
        }
        (!lines.is_empty()).then(|| lines.into())
    }

    fn bookmark(&self) -> Bytes {
        let mut lines = Vec::new();
        line(
            &mut lines,
            "BOOKMARK",
            &bookmark(&self.scope.kind, self.last, false),
        );
        lines.into()
    }
}
