//! What the extensions are told.

use std::time::Duration;

use indexmap::IndexMap;
use karez_document::Diagnosis;
use karez_document::yaml::{Node, join_key};
use serde::Deserialize;

use crate::common::{Auth, GrpcServer, HttpServer};
use crate::values::{Secret, duration, present};

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

/// `oidc`: one provider at the top, or several below `providers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// The header that carries the token.
    pub attribute: String,
    /// The provider's URL, as it calls itself.
    pub issuer_url: String,
    /// Whom tokens must be for.
    pub audience: String,
    /// Take tokens for anybody.
    pub ignore_audience: bool,
    /// A file with the authorities to trust for the provider's certificate.
    pub issuer_ca_path: String,
    /// The claim with the user's name; `sub` unless written.
    pub username_claim: String,
    /// The claim with the user's groups.
    pub groups_claim: String,
    /// Several providers; a token's issuer says which one is meant.
    pub providers: Vec<OidcProvider>,
}

impl Default for Oidc {
    fn default() -> Self {
        Oidc {
            attribute: "authorization".to_owned(),
            issuer_url: String::new(),
            audience: String::new(),
            ignore_audience: false,
            issuer_ca_path: String::new(),
            username_claim: String::new(),
            groups_claim: String::new(),
            providers: Vec::new(),
        }
    }
}

/// A provider of `oidc`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcProvider {
    /// Its URL, as it calls itself.
    pub issuer_url: String,
    /// Whom tokens must be for.
    pub audience: String,
    /// Take tokens for anybody.
    pub ignore_audience: bool,
    /// A file with the authorities to trust for its certificate.
    pub issuer_ca_path: String,
    /// The claim with the user's name; `sub` unless written.
    pub username_claim: String,
    /// The claim with the user's groups.
    pub groups_claim: String,
    /// A PEM file with its public keys, which are then not asked for.
    pub public_keys_file: String,
}

impl Oidc {
    /// All providers, each with the key path below the component that leads to it (empty or with a dot at its end).
    pub fn all(&self) -> Vec<(String, OidcProvider)> {
        let top = OidcProvider {
            issuer_url: self.issuer_url.clone(),
            audience: self.audience.clone(),
            ignore_audience: self.ignore_audience,
            issuer_ca_path: self.issuer_ca_path.clone(),
            username_claim: self.username_claim.clone(),
            groups_claim: self.groups_claim.clone(),
            public_keys_file: String::new(),
        };
        let top = (!self.issuer_url.is_empty()).then(|| (String::new(), top));
        let listed = self.providers.iter().enumerate();
        let listed = listed.map(|(index, provider)| (format!("providers[{index}]."), provider.clone()));
        top.into_iter().chain(listed).collect()
    }
}

/// What is wrong with `oidc` beyond its keys.
pub(crate) fn check_oidc(oidc: &Oidc, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let providers = oidc.all();
    if providers.is_empty() {
        let mend = "write `issuer_url:`, the URL as the provider calls itself";
        diagnoses.push(Diagnosis::error(node.place(), key, "no issuer is given", mend));
    }
    for (below, provider) in providers {
        let mut fault = |part: &str, message: &str, mend: &str| {
            let key = join_key(key, &format!("{below}{part}"));
            diagnoses.push(Diagnosis::error(node.place(), key, message, mend));
        };
        if provider.issuer_url.is_empty() {
            fault(
                "issuer_url",
                "is missing",
                "write the URL as the provider calls itself",
            );
        }
        if provider.audience.is_empty() && !provider.ignore_audience {
            let mend = "write whom the provider's tokens are for, or `ignore_audience: true` to take any";
            fault("audience", "is missing", mend);
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

/// What a queue on disk does when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Refuses what comes, to be sent again (or lets it wait, with `block_on_overflow`).
    #[default]
    Refuse,
    /// Drops what is oldest.
    DropOldest,
}

/// `file_storage`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileStorage {
    /// Where; must be there unless it is to be made.
    pub directory: String,
    /// Make it.
    pub create_directory: bool,
    /// Its mode then, octal.
    pub directory_permissions: String,
    /// How long another's lock is waited for.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Sync before data is acknowledged (ours is on where the Collector's is off: one sync serves all that wait).
    pub fsync: bool,
    /// Has no effect: space is given back by deleting whole segments.
    pub compaction: Option<serde_json::Value>,
    /// Has no effect: what is damaged is set aside, and the rest is used.
    pub recreate: bool,
    /// The most bytes of one queue (ours; the Collector has no such limit).
    pub max_bytes: u64,
    /// What happens then, or when `queue_size` is reached (ours).
    pub when_full: WhenFull,
    /// Bounds the delivery of what waited on the disk while fresh data goes first (ours); 0 does not.
    pub backlog_bytes_per_second: u64,
}

impl Default for FileStorage {
    fn default() -> Self {
        FileStorage {
            directory: "/var/lib/otelcol/file_storage".to_owned(),
            create_directory: false,
            directory_permissions: "0750".to_owned(),
            timeout: Duration::from_secs(1),
            fsync: true,
            compaction: None,
            recreate: false,
            max_bytes: 1 << 30,
            when_full: WhenFull::Refuse,
            backlog_bytes_per_second: 0,
        }
    }
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
    /// In memory and on disk (ours).
    pub disk: Option<DiskBackend>,
}

/// A store that outlives a restart.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskBackend {
    /// The folder, which is made.
    pub directory: String,
    /// The most traces; 0 no limit. The oldest goes first.
    pub max_traces: u64,
    /// The most bytes, in memory and on disk. What is oldest goes first.
    pub max_bytes: u64,
}

impl Default for DiskBackend {
    fn default() -> Self {
        DiskBackend {
            directory: String::new(),
            max_traces: 100_000,
            max_bytes: 256 << 20,
        }
    }
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
