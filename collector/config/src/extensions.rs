//! What the extensions are told.

use indexmap::IndexMap;
use serde::Deserialize;

use crate::common::{Auth, GrpcServer, HttpServer};
use crate::values::{Secret, present};

/// `basicauth`: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// Checks callers.
    pub htpasswd: Option<Htpasswd>,
    /// Adds credentials to calls.
    pub client_auth: Option<ClientAuth>,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Htpasswd {
    /// An htpasswd file.
    pub file: String,
    /// The same, inline; wins over the file.
    pub inline: Secret,
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// A file with the user; wins.
    pub username_file: String,
    /// A file with the password; wins.
    pub password_file: String,
}

/// `bearertokenauth`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BearerTokenAuth {
    /// Stands before the token.
    pub scheme: String,
    /// The header that carries it.
    pub header: String,
    /// The token.
    pub token: Secret,
    /// Several that are accepted; the first is sent.
    pub tokens: Vec<Secret>,
    /// A file with tokens, one a line; watched; wins.
    pub filename: String,
}

impl Default for BearerTokenAuth {
    fn default() -> Self {
        BearerTokenAuth {
            scheme: "Bearer".to_owned(),
            header: "Authorization".to_owned(),
            token: Secret::default(),
            tokens: Vec::new(),
            filename: String::new(),
        }
    }
}

/// `health_check`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthCheck {
    /// Where; without an endpoint localhost:13133.
    pub server: HttpServer,
    /// What.
    pub settings: HealthCheckSettings,
}

/// What `health_check` has beside its server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckSettings {
    /// The path.
    pub path: String,
    /// Other bodies.
    pub response_body: Option<ResponseBody>,
    /// Has no effect.
    pub check_collector_pipeline: Option<serde_json::Value>,
}

impl Default for HealthCheckSettings {
    fn default() -> Self {
        HealthCheckSettings {
            path: "/".to_owned(),
            response_body: None,
            check_collector_pipeline: None,
        }
    }
}

/// Bodies of `health_check`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseBody {
    /// When it runs.
    pub healthy: String,
    /// When it does not.
    pub unhealthy: String,
}

/// `jaeger_storage`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JaegerStorage {
    /// Stores by name.
    #[serde(alias = "trace_backends")]
    pub backends: IndexMap<String, Backend>,
    /// Not yet.
    pub metric_backends: Option<serde_json::Value>,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// In memory.
    #[serde(deserialize_with = "present")]
    pub memory: Option<MemoryBackend>,
}

/// A store in memory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryBackend {
    /// The most traces; 0 no limit. The oldest goes first.
    pub max_traces: u64,
    /// The most bytes (ours; Jaeger has no such limit). The oldest trace goes first.
    pub max_bytes: u64,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        MemoryBackend {
            max_traces: 100_000,
            max_bytes: 256 << 20,
        }
    }
}

/// `jaeger_query`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JaegerQuery {
    /// Which stores.
    pub storage: QueryStorage,
    /// A prefix of all paths.
    pub base_path: String,
    /// The JSON API; without an endpoint localhost:16686.
    #[serde(deserialize_with = "present")]
    pub http: Option<HttpServer>,
    /// Not yet.
    pub grpc: Option<GrpcServer>,
    /// Not yet: there is no page to configure.
    pub ui: Option<serde_json::Value>,
    /// Has no effect.
    pub max_clock_skew_adjust: Option<String>,
    /// Has no effect.
    pub bearer_token_propagation: bool,
    /// Has no effect.
    pub enable_tracing: bool,
    /// The extension that checks callers of all servers.
    pub auth: Option<Auth>,
}

/// The stores of `jaeger_query`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryStorage {
    /// The store's name.
    pub traces: String,
    /// Not yet.
    pub traces_archive: String,
    /// Not yet.
    pub metrics: String,
}
