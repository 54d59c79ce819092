//! The least of HTTP that asking a query API takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::Outcome;

/// `GET` as HTTP/1.0 (so that the body ends with the connection and is not chunked): status and body.
pub(crate) fn get(to: SocketAddr, path: &str) -> Outcome<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
        .with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\nAccept: */*\r\n\r\n")?;
    let mut answer = Vec::new();
    stream
        .take(64 << 20)
        .read_to_end(&mut answer)
        .with_context(|| format!("GET {path} from {to}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("GET {path} from {to}: not HTTP: {answer:?}"))?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((
        status.with_context(|| format!("GET {path} from {to}: {head}"))?,
        body.to_owned(),
    ))
}

/// A trace from Jaeger's query API; nothing while it is not known there.
pub(crate) fn trace(query: SocketAddr, id: &str) -> Outcome<Option<Value>> {
    let (status, body) = get(query, &format!("/api/traces/{id}"))?;
    if status == 404 {
        return Ok(None);
    }
    anyhow::ensure!(status == 200, "trace {id}: status {status}: {body}");
    let answer: Value = serde_json::from_str(&body).with_context(|| format!("trace {id}: {body}"))?;
    Ok(answer.pointer("/data/0").cloned())
}

/// How many of these traces the store has with both their spans.
pub(crate) fn complete_traces(query: SocketAddr, ids: &[String]) -> Outcome<usize> {
    let mut complete = 0;
    for id in ids {
        let spans = trace(query, id)?.and_then(|trace| Some(trace.get("spans")?.as_array()?.len()));
        complete += usize::from(spans == Some(2));
    }
    Ok(complete)
}
