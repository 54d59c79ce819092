//! What the receivers are told.

use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, join_key};
use serde::Deserialize;

use crate::common::{GrpcServer, HttpServer};
use crate::values::present;

/// `otlp`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtlpReceiver {
    /// OTLP/gRPC; without an endpoint on localhost:4317.
    pub grpc: Option<GrpcServer>,
    /// OTLP/HTTP; without an endpoint on localhost:4318.
    pub http: Option<OtlpHttpServer>,
}

/// OTLP/HTTP.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OtlpHttpServer {
    /// The server.
    pub server: HttpServer,
    /// Its paths.
    pub paths: OtlpPaths,
}

/// The paths of OTLP/HTTP.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpPaths {
    /// For traces.
    pub traces_url_path: String,
    /// For metrics.
    pub metrics_url_path: String,
    /// For logs.
    pub logs_url_path: String,
}

impl Default for OtlpPaths {
    fn default() -> Self {
        OtlpPaths {
            traces_url_path: "/v1/traces".to_owned(),
            metrics_url_path: "/v1/metrics".to_owned(),
            logs_url_path: "/v1/logs".to_owned(),
        }
    }
}

/// `jaeger`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JaegerReceiver {
    /// What it listens for; at least one.
    pub protocols: JaegerProtocols,
    /// No longer does anything.
    pub remote_sampling: Option<serde_json::Value>,
}

/// The protocols of the `jaeger` receiver.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JaegerProtocols {
    /// gRPC; without an endpoint on localhost:14250.
    #[serde(deserialize_with = "present")]
    pub grpc: Option<GrpcServer>,
    /// Thrift over HTTP; without an endpoint on localhost:14268.
    #[serde(deserialize_with = "present")]
    pub thrift_http: Option<HttpServer>,
    /// Compact Thrift over UDP; without an endpoint on localhost:6831.
    #[serde(deserialize_with = "present")]
    pub thrift_compact: Option<JaegerUdp>,
    /// Binary Thrift over UDP; without an endpoint on localhost:6832.
    #[serde(deserialize_with = "present")]
    pub thrift_binary: Option<JaegerUdp>,
}

/// Thrift over UDP.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JaegerUdp {
    /// `host:port`.
    pub endpoint: String,
    /// Packets that wait.
    pub queue_size: u32,
    /// The largest packet in bytes.
    pub max_packet_size: u32,
    /// Packets decoded at once.
    pub workers: u32,
    /// The kernel's buffer in bytes; 0 leaves it.
    pub socket_buffer_size: u32,
}

impl Default for JaegerUdp {
    fn default() -> Self {
        JaegerUdp {
            endpoint: String::new(),
            queue_size: 1000,
            max_packet_size: 65_000,
            workers: 10,
            socket_buffer_size: 0,
        }
    }
}

/// The `protocols:` block of an `otlp` receiver, shared out by hand because `http` holds two types' keys.
pub(crate) fn otlp(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<OtlpReceiver> {
    let mut parts = Parts::of(node, key);
    parts.knows(&["protocols"]);
    parts.finish(diagnoses);
    let mut receiver = OtlpReceiver::default();
    if let Some(protocols) = node.get("protocols") {
        let key = join_key(key, "protocols");
        let mut parts = Parts::of(protocols, &key);
        parts.knows(&["grpc", "http"]);
        parts.finish(diagnoses);
        if let Some(grpc) = protocols.get("grpc") {
            let key = join_key(&key, "grpc");
            let mut parts = Parts::of(grpc, &key);
            receiver.grpc = parts.take(diagnoses);
            parts.finish(diagnoses);
        }
        if let Some(http) = protocols.get("http") {
            let key = join_key(&key, "http");
            let mut parts = Parts::of(http, &key);
            let server = parts.take(diagnoses);
            let paths = parts.take(diagnoses);
            parts.finish(diagnoses);
            receiver.http = server
                .zip(paths)
                .map(|(server, paths)| OtlpHttpServer { server, paths });
        }
    }
    if node
        .get("protocols")
        .is_none_or(|p| p.get("grpc").is_none() && p.get("http").is_none())
    {
        let message = "an OTLP receiver needs at least one protocol";
        let mend = "write `protocols: {grpc: {}, http: {}}`";
        diagnoses.push(Diagnosis::error(node.place(), key, message, mend));
    }
    Some(receiver)
}
