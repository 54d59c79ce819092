//! A container's log, from the file that the runtime keeps.

use super::{
    Asked,
    objects::At,
    respond::{self, ApiBody},
};
use crate::{cluster::LocalCluster, error::ApiError, store::text};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::{
    collections::VecDeque,
    convert::Infallible,
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    time::Instant,
};

/// Logs are rotated below this by the runtime; what is longer is read from there on.
const LOG_BYTES: u64 = 32 << 20;
const CHUNK: usize = 64 << 10;
/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Which lines are wanted.
struct Selection {
    tail: Option<usize>,
    since: Option<Timestamp>,
    timestamps: bool,
    limit: Option<usize>,
}

pub(super) async fn answer(
    cluster: Arc<LocalCluster>,
    asked: Asked,
    at: At,
) -> Result<Response<ApiBody>, ApiError> {
    if asked.method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    let target = at.target();
    let pod = cluster.object(&at.kind, target.namespace, target.name)?;
    let container = container(&pod, asked.query.get("container").unwrap_or(""))?;
    let folder = cluster
        .state()
        .join("logs")
        .join(target.namespace)
        .join(target.name);
    let mut path = folder.join(format!("{container}.log"));
    if asked.query.flag("previous") {
        path = folder.join(format!("{container}.log.1"));
    }
    let selection = selection(&asked)?;
    let (content, end) = match read(&path).await {
        Ok(read) => read,
        Err(_) => {
            let words = missing(&pod, &container, asked.query.flag("previous"));
            if !asked.query.flag("follow") || asked.query.flag("previous") {
                return Err(ApiError::bad_request(words));
            }
            (Vec::new(), 0)
        }
    };
    let first = select(&content, &selection);
    if !asked.query.flag("follow") || asked.query.flag("previous") {
        return Ok(respond::text(first));
    }
    let follow = Follow {
        cluster,
        at,
        uid: text(&pod, "/metadata/uid").to_owned(),
        path,
        position: end,
        first: Some(Bytes::from(first)),
        gone_since: None,
    };
    let chunks = stream::unfold(follow, |mut follow| async move {
        follow.next().await.map(|chunk| (chunk, follow))
    });
    let body = StreamBody::new(chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)))).boxed_unsync();
    Ok(respond::with_type(StatusCode::OK, "text/plain", body))
}

fn names(pod: &Value) -> Vec<&str> {
    ["/spec/containers", "/spec/initContainers"]
        .iter()
        .flat_map(|list| pod.pointer(list).and_then(Value::as_array).into_iter().flatten())
        .map(|c| text(c, "/name"))
        .collect()
}

/// The container that is meant: named, annotated, or the only one.
fn container(pod: &Value, named: &str) -> Result<String, ApiError> {
    let (pod_name, names) = (text(pod, "/metadata/name"), names(pod));
    if names.contains(&named) {
        return Ok(named.to_owned());
    }
    if !named.is_empty() {
        let words = format!(
            "container {named} is not valid for pod {pod_name}; it has: {}",
            names.join(", ")
        );
        return Err(ApiError::bad_request(words));
    }
    let main = pod
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    match names.first() {
        Some(only) if main == 1 => Ok((*only).to_owned()),
        _ => {
            let choice = names.join(" ");
            let words =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{choice}]");
            Err(ApiError::bad_request(words))
        }
    }
}

/// Why there is no log: what the container's status says.
fn missing(pod: &Value, container: &str, previous: bool) -> String {
    let name = text(pod, "/metadata/name");
    if previous {
        return format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
    }
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let status = statuses
        .into_iter()
        .flatten()
        .find(|s| text(s, "/name") == container);
    let reason = status.map_or("", |s| text(s, "/state/waiting/reason"));
    let reason = if reason.is_empty() {
        "it has written nothing yet"
    } else {
        reason
    };
    format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}")
}

fn selection(asked: &Asked) -> Result<Selection, ApiError> {
    let seconds = asked.query.number("sinceSeconds");
    let mut since = seconds.and_then(|s| {
        let ago = SignedDuration::from_secs(i64::try_from(s).ok()?);
        Timestamp::now().checked_sub(ago).ok()
    });
    if let Some(time) = asked.query.get("sinceTime") {
        let words = |e| ApiError::bad_request(format!("sinceTime {time:?} is no RFC 3339 time: {e}"));
        since = Some(time.parse::<Timestamp>().map_err(words)?);
    }
    let number = |name: &str| asked.query.number(name).and_then(|n| usize::try_from(n).ok());
    Ok(Selection {
        tail: number("tailLines"),
        since,
        timestamps: asked.query.flag("timestamps"),
        limit: number("limitBytes"),
    })
}

async fn read(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))
        .await?;
    let mut content = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut content).await?;
    Ok((content, length))
}

/// The time a line begins with, plain or as a JSON record's `timestamp`.
fn line_time(line: &[u8]) -> Option<Timestamp> {
    let start = std::str::from_utf8(line.get(..line.len().min(64))?).ok()?;
    let word = match start.strip_prefix("{\"timestamp\":\"") {
        Some(rest) => rest.split('"').next()?,
        None => start.split_whitespace().next()?,
    };
    word.parse().ok()
}

fn select(content: &[u8], selection: &Selection) -> Vec<u8> {
    let mut time = None;
    let mut lines: VecDeque<(Option<Timestamp>, &[u8])> = VecDeque::new();
    for line in content.split_inclusive(|b| *b == b'\n') {
        time = line_time(line).or(time); // a line without a time belongs to the one before
        if selection
            .since
            .is_some_and(|since| time.is_some_and(|t| t < since))
        {
            continue;
        }
        lines.push_back((time, line));
        if selection.tail.is_some_and(|tail| lines.len() > tail) {
            lines.pop_front();
        }
    }
    let mut out = Vec::new();
    for (time, line) in lines {
        if selection.timestamps {
            out.extend_from_slice(time.unwrap_or_default().to_string().as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    out.truncate(selection.limit.unwrap_or(usize::MAX));
    out
}

/// A log that is read on as it grows, until its Pod is gone.
struct Follow {
    cluster: Arc<LocalCluster>,
    at: At,
    uid: String,
    path: PathBuf,
    position: u64,
    first: Option<Bytes>,
    gone_since: Option<Instant>,
}

impl Follow {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|f| !f.is_empty()) {
            return Some(first);
        }
        loop {
            match self.read_on().await {
                Ok(chunk) if !chunk.is_empty() => return Some(chunk.into()),
                _ => {}
            }
            if self.is_over() {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn read_on(&mut self) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&self.path).await?;
        let length = file.metadata().await?.len();
        if length < self.position {
            self.position = 0; // rotated: a new file has begun
        }
        if length == self.position {
            return Ok(Vec::new());
        }
        file.seek(SeekFrom::Start(self.position)).await?;
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        self.position += read as u64;
        Ok(chunk)
    }

    /// The Pod is gone or done, and a moment has passed for its last words.
    fn is_over(&mut self) -> bool {
        let target = self.at.target();
        let alive = self
            .cluster
            .object(&self.at.kind, target.namespace, target.name)
            .is_ok_and(|pod| {
                text(&pod, "/metadata/uid") == self.uid
                    && !matches!(text(&pod, "/status/phase"), "Succeeded" | "Failed")
            });
        if alive {
            self.gone_since = None;
            return false;
        }
        self.gone_since.get_or_insert_with(Instant::now).elapsed() > 2 * POLL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_by_time_and_count() {
        let log = b"2026-01-01T00:00:00Z a\nmore\n2026-01-01T00:00:10Z b\n{\"timestamp\":\"2026-01-01T00:00:20Z\"} c\n";
        let all = Selection {
            tail: None,
            since: None,
            timestamps: false,
            limit: None,
        };
        assert_eq!(select(log, &all), log);
        let since = Selection {
            since: "2026-01-01T00:00:05Z".parse().ok(),
            ..all
        };
        assert!(select(log, &since).starts_with(b"2026-01-01T00:00:10Z b"));
        let tail = Selection {
            tail: Some(1),
            since: None,
            timestamps: true,
            limit: Some(22),
        };
        assert_eq!(select(log, &tail), b"2026-01-01T00:00:20Z {");
    }
}
