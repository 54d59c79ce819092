//! Blocks that many components share: TLS, gRPC and HTTP on both sides, retry, queue.

use std::time::Duration;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::values::{Compression, Secret, duration, present};

/// What both sides of TLS have in common.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// Do not use TLS (unless an authority is named).
    pub insecure: bool,
    /// Do not check the server's certificate.
    pub insecure_skip_verify: bool,
    /// The name the server's certificate must have, if not the endpoint's host.
    #[serde(alias = "server_name")]
    pub server_name_override: String,
    /// A file with the authorities to trust.
    pub ca_file: String,
    /// The same, inline.
    pub ca_pem: Secret,
    /// Trust the system's authorities as well.
    pub include_system_ca_certs_pool: bool,
    /// A file with our certificate.
    pub cert_file: String,
    /// The same, inline.
    pub cert_pem: Secret,
    /// A file with our key.
    pub key_file: String,
    /// The same, inline.
    pub key_pem: Secret,
    /// `1.2` or `1.3`.
    pub min_version: String,
    /// `1.2` or `1.3`.
    pub max_version: String,
    /// After how long files are read again, when a connection is made; 0 never.
    #[serde(deserialize_with = "duration")]
    pub reload_interval: Duration,
    /// Has no effect: the cipher suites are those of the TLS library.
    pub cipher_suites: Vec<String>,
    /// Has no effect.
    pub include_insecure_cipher_suites: bool,
    /// Has no effect.
    pub curve_preferences: Vec<String>,
}

/// TLS of a server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// A file with the authorities that clients' certificates must come from: makes TLS mutual.
    pub client_ca_file: String,
    /// Read the authorities of clients again, now and then.
    pub client_ca_file_reload: bool,
    /// Accepted, not used by a server.
    pub ca_file: String,
    /// Accepted, not used by a server.
    pub ca_pem: Secret,
    /// Accepted, not used by a server.
    pub include_system_ca_certs_pool: bool,
    /// A file with our certificate.
    pub cert_file: String,
    /// The same, inline.
    pub cert_pem: Secret,
    /// A file with our key.
    pub key_file: String,
    /// The same, inline.
    pub key_pem: Secret,
    /// `1.2` or `1.3`.
    pub min_version: String,
    /// `1.2` or `1.3`.
    pub max_version: String,
    /// How often the files are read again; 0 never.
    #[serde(deserialize_with = "duration")]
    pub reload_interval: Duration,
    /// Has no effect: the cipher suites are those of the TLS library.
    pub cipher_suites: Vec<String>,
    /// Has no effect.
    pub include_insecure_cipher_suites: bool,
    /// Has no effect.
    pub curve_preferences: Vec<String>,
}

/// Which extension proves or checks who calls.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The extension's id.
    pub authenticator: String,
    /// Parameters of the URL that are handed to it (HTTP servers).
    pub request_params: Vec<String>,
}

/// Keep-alive of a gRPC client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientKeepalive {
    /// Ping after this much silence.
    #[serde(deserialize_with = "duration")]
    pub time: Duration,
    /// Close when the ping is not answered for so long.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Also without a call under way.
    pub permit_without_stream: bool,
}

impl Default for ClientKeepalive {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        ClientKeepalive {
            time: ten,
            timeout: ten,
            permit_without_stream: false,
        }
    }
}

/// A gRPC client.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcClient {
    /// `host:port`, also with `http://` (no TLS) or `https://`.
    pub endpoint: String,
    /// gzip unless told otherwise.
    pub compression: Compression,
    /// TLS, on by default.
    pub tls: ClientTls,
    /// Off unless written.
    #[serde(deserialize_with = "present")]
    pub keepalive: Option<ClientKeepalive>,
    /// Has no effect.
    pub read_buffer_size: u64,
    /// Has no effect.
    pub write_buffer_size: u64,
    /// Has no effect: a call waits for the connection within its timeout.
    pub wait_for_ready: bool,
    /// Sent with every call.
    pub headers: IndexMap<String, Secret>,
    /// Named in calls.
    pub user_agent: String,
    /// Has no effect: each connection is dialled anew through the resolver.
    pub balancer_name: String,
    /// The `:authority` of calls.
    pub authority: String,
    /// The extension that adds credentials.
    pub auth: Option<Auth>,
}

/// Keep-alive of a gRPC server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerKeepalive {
    /// What the server does.
    pub server_parameters: ServerParameters,
    /// What it tolerates (has no effect).
    pub enforcement_policy: EnforcementPolicy,
}

/// Keep-alive: what a gRPC server does.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerParameters {
    /// Has no effect yet.
    #[serde(deserialize_with = "duration")]
    pub max_connection_idle: Duration,
    /// Has no effect yet.
    #[serde(deserialize_with = "duration")]
    pub max_connection_age: Duration,
    /// Has no effect yet.
    #[serde(deserialize_with = "duration")]
    pub max_connection_age_grace: Duration,
    /// Has no effect yet.
    #[serde(deserialize_with = "duration")]
    pub time: Duration,
    /// Has no effect yet.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

/// Keep-alive: what a gRPC server tolerates (has no effect).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnforcementPolicy {
    /// The least time between pings.
    #[serde(deserialize_with = "duration")]
    pub min_time: Duration,
    /// Pings without a call under way.
    pub permit_without_stream: bool,
}

/// A gRPC server. An empty endpoint means the component's default.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcServer {
    /// `host:port`, or a path with `transport: unix`.
    pub endpoint: String,
    /// `tcp` (also without it) or `unix`.
    pub transport: String,
    /// TLS, off unless written.
    #[serde(deserialize_with = "present")]
    pub tls: Option<ServerTls>,
    /// The largest message in MiB; 0 means 4.
    pub max_recv_msg_size_mib: u32,
    /// Calls at once on a connection; 0 means no limit of ours.
    pub max_concurrent_streams: u32,
    /// Has no effect.
    pub read_buffer_size: u64,
    /// Has no effect.
    pub write_buffer_size: u64,
    /// Off unless written.
    pub keepalive: ServerKeepalive,
    /// The extension that checks callers.
    pub auth: Option<Auth>,
    /// Has no effect yet.
    pub include_metadata: bool,
}

impl GrpcServer {
    /// The largest message in bytes.
    pub fn max_message(&self) -> usize {
        match self.max_recv_msg_size_mib {
            0 => 4 << 20,
            mib => (mib as usize) << 20,
        }
    }
}

/// Which pages of other origins may call.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins, `*` as wildcard.
    pub allowed_origins: Vec<String>,
    /// Headers beyond the simple ones.
    pub allowed_headers: Vec<String>,
    /// Headers that scripts may read.
    pub exposed_headers: Vec<String>,
    /// Seconds for which an answer may be remembered.
    pub max_age: u32,
}

/// An HTTP server. An empty endpoint means the component's default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServer {
    /// `host:port`, or a path with `transport: unix`.
    pub endpoint: String,
    /// `tcp` (also without it) or `unix`.
    pub transport: String,
    /// TLS, off unless written.
    #[serde(deserialize_with = "present")]
    pub tls: Option<ServerTls>,
    /// Which pages of other origins may call.
    pub cors: Option<Cors>,
    /// The extension that checks callers.
    pub auth: Option<Auth>,
    /// The largest body in bytes, compressed and not; 0 means 20 MiB.
    pub max_request_body_size: u64,
    /// Has no effect yet.
    pub include_metadata: bool,
    /// Added to answers.
    pub response_headers: IndexMap<String, String>,
    /// Has no effect: gzip, zstd, snappy, zlib and deflate are read.
    pub compression_algorithms: Vec<String>,
    /// Has no effect.
    #[serde(deserialize_with = "duration")]
    pub read_timeout: Duration,
    /// Has no effect: a request's head must come within 10 s.
    #[serde(deserialize_with = "duration")]
    pub read_header_timeout: Duration,
    /// Has no effect.
    #[serde(deserialize_with = "duration")]
    pub write_timeout: Duration,
    /// Has no effect.
    #[serde(deserialize_with = "duration")]
    pub idle_timeout: Duration,
    /// Has no effect yet: connections stay open between requests.
    pub keep_alives_enabled: bool,
}

impl Default for HttpServer {
    fn default() -> Self {
        HttpServer {
            endpoint: String::new(),
            transport: String::new(),
            tls: None,
            cors: None,
            auth: None,
            max_request_body_size: 0,
            include_metadata: false,
            response_headers: IndexMap::new(),
            compression_algorithms: Vec::new(),
            read_timeout: Duration::ZERO,
            read_header_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            keep_alives_enabled: true,
        }
    }
}

impl HttpServer {
    /// The largest body in bytes.
    pub fn max_body(&self) -> usize {
        match self.max_request_body_size {
            0 => 20 << 20,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }
}

/// An HTTP client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpClient {
    /// `http://host:port` or `https://host:port`, with an optional path.
    pub endpoint: String,
    /// An HTTP proxy, `http://[user:password@]host:port`, that connects to the endpoint.
    pub proxy_url: String,
    /// TLS for `https://`.
    pub tls: ClientTls,
    /// For a whole request.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Sent with every request.
    pub headers: IndexMap<String, Secret>,
    /// The extension that adds credentials.
    pub auth: Option<Auth>,
    /// gzip unless told otherwise.
    pub compression: Compression,
    /// Has no effect.
    pub read_buffer_size: u64,
    /// Has no effect.
    pub write_buffer_size: u64,
    /// Has no effect.
    pub max_idle_conns: Option<u32>,
    /// Idle connections kept to the endpoint.
    pub max_idle_conns_per_host: Option<u32>,
    /// Has no effect.
    pub max_conns_per_host: Option<u32>,
    /// How long an idle connection is kept.
    #[serde(deserialize_with = "duration")]
    pub idle_conn_timeout: Duration,
    /// A connection for each request.
    pub disable_keep_alives: bool,
    /// Has no effect.
    #[serde(deserialize_with = "duration")]
    pub http2_read_idle_timeout: Duration,
    /// Has no effect.
    #[serde(deserialize_with = "duration")]
    pub http2_ping_timeout: Duration,
    /// Has no effect.
    pub force_attempt_http2: bool,
    /// How hard is compressed.
    pub compression_params: Option<CompressionParams>,
}

impl Default for HttpClient {
    fn default() -> Self {
        HttpClient {
            endpoint: String::new(),
            proxy_url: String::new(),
            tls: ClientTls::default(),
            timeout: Duration::from_secs(30),
            headers: IndexMap::new(),
            auth: None,
            compression: Compression::Gzip,
            read_buffer_size: 0,
            write_buffer_size: 0,
            max_idle_conns: None,
            max_idle_conns_per_host: None,
            max_conns_per_host: None,
            idle_conn_timeout: Duration::from_secs(90),
            disable_keep_alives: false,
            http2_read_idle_timeout: Duration::ZERO,
            http2_ping_timeout: Duration::ZERO,
            force_attempt_http2: true,
            compression_params: None,
        }
    }
}

/// How hard is compressed.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressionParams {
    /// The level of the algorithm; 0 and -1 leave it.
    pub level: i32,
}

impl CompressionParams {
    /// The level, if one is written.
    pub fn level(&self) -> Option<i32> {
        (self.level > 0).then_some(self.level)
    }
}

/// What is kept apart in a queue's batches.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partition {
    /// The headers; the receiver has to keep them (`include_metadata`).
    pub metadata_keys: Vec<String>,
}

/// `retry_on_failure`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Whether a failed export is tried again.
    pub enabled: bool,
    /// The first wait.
    #[serde(deserialize_with = "duration")]
    pub initial_interval: Duration,
    /// A wait is chosen at random between (1 − this) and (1 + this) of itself.
    pub randomization_factor: f64,
    /// Each wait is this many times the one before.
    pub multiplier: f64,
    /// The longest wait.
    #[serde(deserialize_with = "duration")]
    pub max_interval: Duration,
    /// After this the data is given up; 0 never.
    #[serde(deserialize_with = "duration")]
    pub max_elapsed_time: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::from_secs(300),
        }
    }
}

impl Retry {
    /// With a queue on disk nothing is given up unless the document says after how long.
    pub(crate) fn for_queue(&mut self, queue: &Queue, exporter: &karez_document::yaml::Node) {
        let written = exporter.at_path(&["retry_on_failure", "max_elapsed_time"]);
        if queue.enabled && queue.storage.is_some() && written.is_none() {
            self.max_elapsed_time = Duration::ZERO;
        }
    }
}

/// In what a queue is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sizer {
    /// Batches.
    #[default]
    Requests,
    /// Spans, data points, log records.
    Items,
    /// Bytes of their encoding.
    Bytes,
}

/// `sending_queue`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Whether data is queued before it is sent.
    pub enabled: bool,
    /// Exports at once.
    pub num_consumers: u32,
    /// How much it holds.
    pub queue_size: u64,
    /// In what that is measured.
    pub sizer: Sizer,
    /// Wait for room instead of refusing.
    pub block_on_overflow: bool,
    /// Wait until the data is sent.
    pub wait_for_result: bool,
    /// The id of a storage extension: the queue is on disk.
    pub storage: Option<String>,
    /// Sends several batches as one; off unless written.
    #[serde(deserialize_with = "present")]
    pub batch: Option<QueueBatch>,
}

/// `sending_queue.batch`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueBatch {
    /// For how long what is too little waits for more.
    #[serde(deserialize_with = "duration")]
    pub flush_timeout: Duration,
    /// From how much on it is sent at once.
    pub min_size: u64,
    /// The most that is sent as one; 0 no bound.
    pub max_size: u64,
    /// In what that is measured: items or bytes.
    #[serde(deserialize_with = "sizer_of_batch")]
    pub sizer: Sizer,
    /// Keeps apart what came with different headers.
    pub partition: Option<Partition>,
}

impl Default for QueueBatch {
    fn default() -> Self {
        QueueBatch {
            flush_timeout: Duration::from_millis(200),
            min_size: 8192,
            max_size: 0,
            sizer: Sizer::Items,
            partition: None,
        }
    }
}

impl QueueBatch {
    /// The most items that are sent as one; 0 no bound. Bytes bound what is joined, not what came as one.
    pub fn max_items(&self) -> usize {
        match self.sizer {
            Sizer::Items => usize::try_from(self.max_size).unwrap_or(usize::MAX),
            Sizer::Requests | Sizer::Bytes => 0,
        }
    }
}

fn sizer_of_batch<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Sizer, D::Error> {
    match Sizer::deserialize(deserializer)? {
        Sizer::Requests => Err(serde::de::Error::custom(
            "batches cannot be measured in requests; write items or bytes",
        )),
        sizer => Ok(sizer),
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: Sizer::Requests,
            block_on_overflow: false,
            wait_for_result: false,
            storage: None,
            batch: None,
        }
    }
}

/// What every exporter that sends has beside its client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sending {
    /// For one attempt.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// What happens after a failure.
    pub retry_on_failure: Retry,
    /// What happens before.
    pub sending_queue: Queue,
}

impl Default for Sending {
    fn default() -> Self {
        Sending {
            timeout: Duration::from_secs(5),
            retry_on_failure: Retry::default(),
            sending_queue: Queue::default(),
        }
    }
}
