//! The API over a real HTTP server on a port of the system's choice.

use std::net::SocketAddr;
use std::sync::Arc;

use super::router;
use crate::extensions::jaeger_storage::{Limits, TraceStore};
use crate::jaeger::model::{self, KeyValue, Log, SpanRef};
use crate::jaeger::to_otlp;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

async fn serve(store: Arc<TraceStore>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(store, "/")).await });
    address
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

const START: i64 = 1_700_000_000_000_000;
const ID: &str = "0123456789abcdef0011223344556677";

fn trace() -> Vec<u8> {
    let trace_id = hex::decode(ID).unwrap();
    let span = |id: u8, name: &str, kind: &str, start: i64| model::Span {
        trace_id: trace_id.clone(),
        span_id: vec![0, 0, 0, 0, 0, 0, 0, id],
        operation_name: name.into(),
        start_time: Some(model::Timestamp::from_micros(start)),
        duration: Some(model::Duration::from_micros(250)),
        tags: vec![KeyValue::string("span.kind", kind)],
        ..model::Span::default()
    };
    let mut client = span(1, "lets-go", "client", START);
    client.flags = 1;
    client.tags.extend([
        KeyValue::int("big", i64::MAX),
        KeyValue::int("small", -5),
        KeyValue::float("half", 0.5),
        KeyValue::float("two", 2.0),
        KeyValue::bool("yes", true),
        KeyValue::binary("raw", vec![1, 2, 255]),
    ]);
    client.logs = vec![Log {
        timestamp: Some(model::Timestamp::from_micros(START + 1)),
        fields: vec![KeyValue::string("event", "retry")],
    }];
    let mut server = span(2, "okey-dokey", "server", START + 100);
    server.tags.push(KeyValue::bool("error", true));
    server.references = vec![SpanRef {
        trace_id: trace_id.clone(),
        span_id: vec![0, 0, 0, 0, 0, 0, 0, 1],
        ref_type: 0,
    }];
    let process = |name: &str| {
        Some(model::Process {
            service_name: name.into(),
            tags: vec![KeyValue::string("zone", "a")],
        })
    };
    server.process = process("back");
    let batch = model::Batch {
        spans: vec![client, server],
        process: process("front"),
    };
    TracesData {
        resource_spans: to_otlp::batch(batch),
    }
    .encode_to_vec()
}

async fn with_trace() -> SocketAddr {
    let store = Arc::new(TraceStore::new(Limits {
        max_bytes: 1 << 20,
        max_traces: 0,
    }));
    store.add(&trace()).unwrap();
    serve(store).await
}

#[tokio::test]
async fn an_empty_store_answers_in_the_envelope() {
    let address = serve(Arc::new(TraceStore::new(Limits {
        max_bytes: 1 << 20,
        max_traces: 0,
    })))
    .await;
    let services = ask(address, "GET", "/api/services").await;
    assert_eq!(
        services.body,
        r#"{"data":[],"total":0,"limit":0,"offset":0,"errors":null}"#
    );
    assert!(services.head.contains("content-type: application/json"));
    for path in [
        "/api/traces?service=x",
        "/api/dependencies",
        "/api/operations?service=x",
        "/api/services/x/operations",
    ] {
        assert_eq!(
            ask(address, "GET", path).await.json()["data"],
            json!([]),
            "{path}"
        );
    }
}

#[tokio::test]
async fn services_and_operations() {
    let address = with_trace().await;
    let body = |path| async move { ask(address, "GET", path).await.body };
    assert_eq!(
        body("/api/services").await,
        r#"{"data":["back","front"],"total":2,"limit":0,"offset":0,"errors":null}"#
    );
    assert_eq!(
        body("/api/operations?service=front").await,
        r#"{"data":[{"name":"lets-go","spanKind":"client"}],"total":1,"limit":0,"offset":0,"errors":null}"#
    );
    assert_eq!(
        body("/api/operations?service=front&spanKind=server").await,
        r#"{"data":[],"total":0,"limit":0,"offset":0,"errors":null}"#
    );
    assert_eq!(
        body("/api/services/back/operations").await,
        r#"{"data":["okey-dokey"],"total":1,"limit":0,"offset":0,"errors":null}"#
    );
}

#[tokio::test]
async fn a_trace_is_written_key_for_key() {
    let address = with_trace().await;
    let answer = ask(address, "GET", &format!("/api/traces/{ID}")).await;
    let expected = r#"{"data":[{"traceID":"0123456789abcdef0011223344556677","spans":[{"traceID":"0123456789abcdef0011223344556677","spanID":"0000000000000001","flags":1,"operationName":"lets-go","references":[],"startTime":1700000000000000,"duration":250,"tags":[{"key":"big","type":"int64","value":"9223372036854775807"},{"key":"small","type":"int64","value":-5},{"key":"half","type":"float64","value":0.5},{"key":"two","type":"float64","value":2},{"key":"yes","type":"bool","value":true},{"key":"raw","type":"binary","value":"AQL/"},{"key":"span.kind","type":"string","value":"client"}],"logs":[{"timestamp":1700000000000001,"fields":[{"key":"event","type":"string","value":"retry"}]}],"processID":"p1","warnings":null},{"traceID":"0123456789abcdef0011223344556677","spanID":"0000000000000002","operationName":"okey-dokey","references":[{"refType":"CHILD_OF","traceID":"0123456789abcdef0011223344556677","spanID":"0000000000000001"}],"startTime":1700000000000100,"duration":250,"tags":[{"key":"span.kind","type":"string","value":"server"},{"key":"otel.status_code","type":"string","value":"ERROR"},{"key":"error","type":"bool","value":true}],"logs":[],"processID":"p2","warnings":null}],"processes":{"p1":{"serviceName":"front","tags":[{"key":"zone","type":"string","value":"a"}]},"p2":{"serviceName":"back","tags":[{"key":"zone","type":"string","value":"a"}]}},"warnings":null}],"total":0,"limit":0,"offset":0,"errors":null}"#;
    assert_eq!(answer.body, expected);
    let pretty = ask(address, "GET", &format!("/api/traces/{ID}?prettyPrint=true")).await;
    assert!(pretty.body.starts_with("{\n    \"data\": [\n        {\n"));
    assert_eq!(pretty.json(), answer.json());
}

#[tokio::test]
async fn searches_find_by_every_parameter() {
    let address = with_trace().await;
    let span = format!("start={}&end={}", START - 10, START + 1_000);
    let count = |more: &str| {
        let path = format!("/api/traces?service=front&{span}&{more}");
        async move {
            ask(address, "GET", &path).await.json()["data"]
                .as_array()
                .unwrap()
                .len()
        }
    };
    for hit in [
        "",
        "operation=lets-go",
        "tag=small:-5",
        "tags=%7B%22yes%22:%22true%22%7D",
        "minDuration=250us&maxDuration=1ms",
        "limit=1&lookback=1h",
        "tag=event:retry",
        "raw=true",
    ] {
        assert_eq!(count(hit).await, 1, "{hit}");
    }
    for miss in [
        "operation=okey-dokey",
        "tag=small:5",
        "minDuration=251us",
        "maxDuration=249us",
    ] {
        assert_eq!(count(miss).await, 0, "{miss}");
    }
    assert_eq!(
        ask(address, "GET", "/api/traces?service=front").await.json()["data"],
        json!([])
    ); // older than two days
    let by_id = ask(address, "GET", &format!("/api/traces?traceID={ID}&traceID=00ff")).await;
    assert_eq!(by_id.status, 200);
    assert_eq!(by_id.json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        by_id.json()["errors"],
        json!([{"msg": "trace not found", "traceID": "000000000000000000000000000000ff"}])
    );
}

#[tokio::test]
async fn dependencies_count_calls() {
    let address = with_trace().await;
    let end = START / 1_000 + 1_000;
    let found = ask(
        address,
        "GET",
        &format!("/api/dependencies?endTs={end}&lookback=60000"),
    )
    .await;
    assert_eq!(
        found.body,
        r#"{"data":[{"parent":"front","child":"back","callCount":1}],"total":0,"limit":0,"offset":0,"errors":null}"#
    );
}

#[tokio::test]
async fn errors_are_envelopes_sent_as_text() {
    let address = with_trace().await;
    let expect = async |path: &str, status: u16, message: &str| {
        let answer = ask(address, "GET", path).await;
        let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": [{"code": status, "msg": message}]});
        assert_eq!(
            (answer.status, answer.body.ends_with('\n')),
            (status, true),
            "{path}"
        );
        assert_eq!(answer.json(), body, "{path}");
        assert!(
            answer.head.contains("content-type: text/plain; charset=utf-8"),
            "{}",
            answer.head
        );
        assert!(answer.head.contains("x-content-type-options: nosniff"));
    };
    expect("/api/operations", 400, "parameter 'service' is required").await;
    expect("/api/traces", 400, "parameter 'service' is required").await;
    expect(
        "/api/traces?service=a&minDuration=2s&maxDuration=1s",
        400,
        "'maxDuration' should be greater than 'minDuration'",
    )
    .await;
    let number = "unable to parse param 'start': strconv.ParseInt: parsing \"x\": invalid syntax";
    expect("/api/traces?service=a&start=x", 400, number).await;
    expect(
        "/api/traces?service=a&tag=x",
        400,
        "malformed 'tag' parameter, expecting key:value, received: x",
    )
    .await;
    expect("/api/traces/ff", 404, "trace not found").await;
    let id = "unable to parse param 'traceID': strconv.ParseUint: parsing \"zz\": invalid syntax";
    expect("/api/traces/zz", 400, id).await;
    expect(
        "/api/metrics/calls?service=a",
        501,
        "metrics querying is currently disabled",
    )
    .await;
}

#[tokio::test]
async fn the_root_says_what_this_is_and_unknown_api_paths_are_404() {
    let address = with_trace().await;
    let page = ask(address, "GET", "/").await;
    assert!(
        page.head.contains("text/html")
            && page.body.contains("/api/services")
            && page.body.contains("not built yet")
    );
    assert_eq!(ask(address, "GET", "/api/nothing").await.status, 404);
}

#[tokio::test]
async fn version_3_answers_in_otlp_json() {
    let address = with_trace().await;
    let get = async |path: &str| {
        let answer = ask(address, "GET", path).await;
        (answer.status, answer.json())
    };
    assert_eq!(
        get("/api/v3/services").await,
        (200, json!({"services": ["back", "front"]}))
    );
    let operations = json!({"operations": [{"name": "lets-go", "spanKind": "client"}]});
    assert_eq!(get("/api/v3/operations?service=front").await, (200, operations));
    let time = "query.start_time_min=2023-11-14T22:13:00Z&query.start_time_max=2023-11-14T22:14:00Z";
    let (status, found) = get(&format!("/api/v3/traces?query.service_name=front&{time}")).await;
    assert_eq!(
        (status, found["result"]["resourceSpans"].as_array().unwrap().len()),
        (200, 2)
    );
    let span = &found["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["traceId"], &span["name"]), (&json!(ID), &json!("lets-go")));
    assert_eq!(get(&format!("/api/v3/traces/{ID}")).await, (200, found));
    let missing = json!({"error": {"httpCode": 404, "message": "trace not found"}});
    assert_eq!(get("/api/v3/traces/01").await, (404, missing));
    assert_eq!(get("/api/v3/traces?query.service_name=front").await.0, 400);
}
