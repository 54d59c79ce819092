//! What the extensions `oauth2client`, `headers_setter` and `zpages` are told.

use std::time::Duration;

use indexmap::IndexMap;
use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, decode_at, join_key};
use serde::Deserialize;
use serde_json::Value;

use crate::common::{ClientTls, HttpServer};
use crate::endpoint::http_url;
use crate::values::{Secret, duration};

/// `oauth2client`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth2Client {
    /// Who we are.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Secret,
    /// A file with the identifier; wins, and is read for each token.
    pub client_id_file: String,
    /// A file with the secret; wins, and is read for each token.
    pub client_secret_file: String,
    /// Where tokens are given.
    pub token_url: String,
    /// What the token is to be for.
    pub scopes: Vec<String>,
    /// More parameters of the request.
    pub endpoint_params: IndexMap<String, OneOrMore>,
    /// How long an answer may take; 0 means 30 s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// How long before its end a token is exchanged.
    #[serde(deserialize_with = "duration")]
    pub expiry_buffer: Duration,
    /// TLS of the server that gives tokens.
    pub tls: ClientTls,
    /// Only `client_credentials`.
    pub grant_type: String,
    /// For `jwt-bearer`: refused.
    pub client_certificate_key_id: Option<Value>,
    /// For `jwt-bearer`: refused.
    pub client_certificate_key: Option<Value>,
    /// For `jwt-bearer`: refused.
    pub client_certificate_key_file: Option<Value>,
    /// For `jwt-bearer`: refused.
    pub signature_algorithm: Option<Value>,
    /// For `jwt-bearer`: refused.
    pub iss: Option<Value>,
    /// For `jwt-bearer`: refused.
    pub audience: Option<Value>,
    /// For `jwt-bearer`: refused.
    pub claims: Option<Value>,
}

impl Default for OAuth2Client {
    fn default() -> Self {
        OAuth2Client {
            client_id: String::new(),
            client_secret: Secret::default(),
            client_id_file: String::new(),
            client_secret_file: String::new(),
            token_url: String::new(),
            scopes: Vec::new(),
            endpoint_params: IndexMap::new(),
            timeout: Duration::ZERO,
            expiry_buffer: Duration::from_secs(300),
            tls: ClientTls::default(),
            grant_type: "client_credentials".to_owned(),
            client_certificate_key_id: None,
            client_certificate_key: None,
            client_certificate_key_file: None,
            signature_algorithm: None,
            iss: None,
            audience: None,
            claims: None,
        }
    }
}

/// A text, or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            OneOrMore::One(one) => std::slice::from_ref(one),
            OneOrMore::More(more) => more,
        }
    }
}

pub(crate) fn oauth2(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<OAuth2Client> {
    let client: OAuth2Client = decode_at(node, key, diagnoses)?;
    let mut fault = |part: &str, message: &str, mend: &str| {
        diagnoses.push(Diagnosis::error(
            node.key_place(part),
            join_key(key, part),
            message,
            mend,
        ));
    };
    if client.client_id.is_empty() && client.client_id_file.is_empty() {
        fault("client_id", "is missing", "write it, or `client_id_file:`");
    }
    if client.client_secret.is_empty() && client.client_secret_file.is_empty() {
        fault(
            "client_secret",
            "is missing",
            "write it, or `client_secret_file:`",
        );
    }
    if let Err(wrong) = http_url(&client.token_url) {
        let (message, mend) = wrong.split_once("; ").unwrap_or((&wrong, "correct it"));
        fault("token_url", message, mend);
    }
    if client.grant_type != "client_credentials" {
        let message = format!("the grant `{}` is not supported", client.grant_type);
        fault("grant_type", &message, "write client_credentials");
    }
    for part in [
        "client_certificate_key_id",
        "client_certificate_key",
        "client_certificate_key_file",
        "signature_algorithm",
        "iss",
        "audience",
        "claims",
    ] {
        if node.get(part).is_some_and(|node| !node.is_null()) {
            let mend = "remove it; what a provider asks for beside the grant goes below `endpoint_params:`";
            fault(part, "is of the grant jwt-bearer, which is not supported", mend);
        }
    }
    Some(client)
}

/// `headers_setter`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadersSetter {
    /// What becomes of requests' headers, in this order.
    pub headers: Vec<HeaderChange>,
    /// Another authenticator, whose headers come first.
    pub additional_auth: String,
}

/// What becomes of a header.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChange {
    /// The header.
    #[serde(default)]
    pub key: String,
    /// What is done.
    #[serde(default)]
    pub action: HeaderAction,
    /// The value.
    #[serde(default)]
    pub value: Option<Secret>,
    /// Or the header of the request that the data came with.
    #[serde(default)]
    pub from_context: Option<String>,
    /// Or what the caller proved to be.
    #[serde(default)]
    pub from_attribute: Option<String>,
    /// Or a file's text, read again when it changes.
    #[serde(default)]
    pub value_file: Option<String>,
    /// The value where `from_context` or `from_attribute` finds none.
    #[serde(default)]
    pub default_value: Option<Secret>,
}

/// What is done to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderAction {
    /// Set.
    #[default]
    Upsert,
    /// Only if absent.
    Insert,
    /// Only if present.
    Update,
    /// Removed.
    Delete,
}

pub(crate) fn headers_setter(
    node: &Node,
    key: &str,
    diagnoses: &mut Vec<Diagnosis>,
) -> Option<HeadersSetter> {
    let setter: HeadersSetter = decode_at(node, key, diagnoses)?;
    if setter.headers.is_empty() {
        let mend = "add such as `{key: X-Scope-OrgID, from_context: tenant_id}`";
        let key = join_key(key, "headers");
        diagnoses.push(Diagnosis::error(
            node.key_place("headers"),
            key,
            "no header is given",
            mend,
        ));
    }
    for (index, change) in setter.headers.iter().enumerate() {
        let key = format!("{key}.headers[{index}]");
        let mut fault = |message: &str, mend: &str| {
            diagnoses.push(Diagnosis::error(
                node.key_place("headers"),
                key.as_str(),
                message,
                mend,
            ));
        };
        if change.key.is_empty() {
            fault("has no key", "name the header");
        }
        let sources = [
            change.value.is_some(),
            change.from_context.is_some(),
            change.from_attribute.is_some(),
            change.value_file.is_some(),
        ];
        match (change.action, sources.iter().filter(|given| **given).count()) {
            (HeaderAction::Delete, _) | (_, 1) => {}
            (_, 0) => fault(
                "has no value",
                "write value, from_context, from_attribute or value_file",
            ),
            (_, _) => fault("has several values", "keep one of them"),
        }
    }
    Some(setter)
}

/// `zpages`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ZPages {
    /// Where; without an endpoint localhost:55679.
    pub server: HttpServer,
    /// What.
    pub settings: ZPagesSettings,
}

/// What `zpages` has beside its server.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZPagesSettings {
    /// Metrics at `/debug/expvarz`.
    pub expvar: Expvar,
}

/// Metrics at `/debug/expvarz`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expvar {
    /// Whether they are there.
    pub enabled: bool,
}

pub(crate) fn zpages(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<ZPages> {
    let mut parts = Parts::of(node, key);
    let server = parts.take(diagnoses);
    let settings = parts.take(diagnoses);
    parts.finish(diagnoses);
    server
        .zip(settings)
        .map(|(server, settings)| ZPages { server, settings })
}
