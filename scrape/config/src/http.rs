//! How a scrape or a discovery speaks HTTP: credentials, TLS, proxy, headers.

use std::collections::BTreeMap;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, join_key};
use serde::Deserialize;

use crate::values::Secret;

/// The keys as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpDocument {
    basic_auth: Option<BasicAuth>,
    authorization: Option<AuthorizationDocument>,
    oauth2: Option<OAuth2>,
    bearer_token: Option<Secret>,
    bearer_token_file: Option<String>,
    tls_config: Option<Tls>,
    follow_redirects: Option<bool>,
    enable_http2: Option<bool>,
    proxy_url: Option<String>,
    no_proxy: Option<String>,
    proxy_from_environment: Option<bool>,
    proxy_connect_header: Option<BTreeMap<String, Vec<Secret>>>,
    http_headers: Option<BTreeMap<String, Header>>,
}

/// `basic_auth`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    /// The name.
    pub username: String,
    /// A file with it.
    pub username_file: String,
    /// The password.
    pub password: Secret,
    /// A file with it, read for each request.
    pub password_file: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuthorizationDocument {
    r#type: Option<String>,
    credentials: Secret,
    credentials_file: String,
}

/// `authorization`, and what is left of `bearer_token`.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// `Bearer` unless told otherwise.
    pub kind: String,
    /// What follows it.
    pub credentials: Secret,
    /// A file with it, read for each request.
    pub credentials_file: String,
}

/// `oauth2`: client credentials.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth2 {
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// A file with it.
    pub client_secret_file: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Where.
    pub token_url: String,
    /// More parameters of the request.
    pub endpoint_params: BTreeMap<String, String>,
    /// TLS of that request.
    pub tls_config: Option<Tls>,
    /// Not supported.
    pub proxy_url: Option<String>,
    /// Not supported.
    pub no_proxy: Option<String>,
    /// Not supported.
    pub proxy_from_environment: Option<bool>,
}

/// `tls_config`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Authorities to trust, inline.
    pub ca: Secret,
    /// A file with them.
    pub ca_file: String,
    /// Our certificate, inline.
    pub cert: Secret,
    /// A file with it.
    pub cert_file: String,
    /// Our key, inline.
    pub key: Secret,
    /// A file with it.
    pub key_file: String,
    /// The name that the certificate must have.
    pub server_name: String,
    /// Do not check the certificate.
    pub insecure_skip_verify: bool,
    /// `TLS12` or `TLS13`.
    pub min_version: String,
    /// `TLS12` or `TLS13`.
    pub max_version: String,
}

/// A header of `http_headers`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Header {
    /// Its values.
    pub values: Vec<String>,
    /// Its values that are not shown.
    pub secrets: Vec<Secret>,
    /// Files with values.
    pub files: Vec<String>,
}

/// What it means.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Basic authentication.
    pub basic_auth: Option<BasicAuth>,
    /// A header `Authorization`.
    pub authorization: Option<Authorization>,
    /// A token fetched with client credentials.
    pub oauth2: Option<OAuth2>,
    /// TLS for `https`.
    pub tls: Tls,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be spoken over TLS.
    pub enable_http2: bool,
    /// More headers.
    pub headers: BTreeMap<String, Header>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            tls: Tls::default(),
            follow_redirects: true,
            enable_http2: true,
            headers: BTreeMap::new(),
        }
    }
}

/// Headers that are set by who sends, not by the document.
const RESERVED_HEADERS: [&str; 9] = [
    "accept",
    "accept-encoding",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-prometheus-scrape-timeout-seconds",
];

/// Takes the keys out of a block that holds others, too.
pub(crate) fn take(
    node: &Node,
    parts: &mut Parts<'_>,
    key: &str,
    diagnoses: &mut Vec<Diagnosis>,
) -> HttpConfig {
    let document: HttpDocument = parts.take(diagnoses).unwrap_or_default();
    let mut wrong = |name: &str, message: &str, mend: &str| {
        diagnoses.push(Diagnosis::error(
            node.key_place(name),
            join_key(key, name),
            message,
            mend,
        ));
    };
    check(&document, &mut wrong);
    let bearer = document.bearer_token.filter(|token| !token.is_empty());
    let bearer_file = document.bearer_token_file.filter(|file| !file.is_empty());
    let authorization = match document.authorization {
        Some(written) => Some(Authorization {
            kind: written
                .r#type
                .map(|kind| kind.trim().to_owned())
                .filter(|kind| !kind.is_empty())
                .unwrap_or_else(|| "Bearer".to_owned()),
            credentials: written.credentials,
            credentials_file: written.credentials_file,
        }),
        None if bearer.is_some() || bearer_file.is_some() => Some(Authorization {
            kind: "Bearer".to_owned(),
            credentials: bearer.unwrap_or_default(),
            credentials_file: bearer_file.unwrap_or_default(),
        }),
        None => None,
    };
    HttpConfig {
        basic_auth: document.basic_auth,
        authorization,
        oauth2: document.oauth2,
        tls: document.tls_config.unwrap_or_default(),
        follow_redirects: document.follow_redirects.unwrap_or(true),
        enable_http2: document.enable_http2.unwrap_or(true),
        headers: document.http_headers.unwrap_or_default(),
    }
}

fn check(document: &HttpDocument, wrong: &mut impl FnMut(&str, &str, &str)) {
    let present = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let bearer = document.bearer_token.as_ref().is_some_and(|t| !t.is_empty());
    let ways = [
        ("basic_auth", document.basic_auth.is_some()),
        ("authorization", document.authorization.is_some()),
        ("oauth2", document.oauth2.is_some()),
        ("bearer_token", bearer),
        ("bearer_token_file", present(&document.bearer_token_file)),
    ];
    if let Some((second, _)) = ways.iter().filter(|(_, there)| *there).nth(1) {
        let mend = "keep one of basic_auth, authorization, oauth2, bearer_token and bearer_token_file";
        wrong(second, "there is another kind of authentication already", mend);
    }
    if let Some(basic) = &document.basic_auth {
        if !basic.password.is_empty() && !basic.password_file.is_empty() {
            wrong(
                "basic_auth",
                "has both `password` and `password_file`",
                "keep one",
            );
        }
        if !basic.username.is_empty() && !basic.username_file.is_empty() {
            wrong(
                "basic_auth",
                "has both `username` and `username_file`",
                "keep one",
            );
        }
    }
    if let Some(authorization) = &document.authorization {
        if !authorization.credentials.is_empty() && !authorization.credentials_file.is_empty() {
            wrong(
                "authorization",
                "has both `credentials` and `credentials_file`",
                "keep one",
            );
        }
        let kind = authorization.r#type.as_deref().unwrap_or_default();
        if kind.trim().eq_ignore_ascii_case("basic") {
            wrong("authorization", "`type` cannot be `basic`", "use `basic_auth`");
        }
    }
    if let Some(oauth2) = &document.oauth2 {
        if oauth2.client_id.is_empty() || oauth2.token_url.is_empty() {
            wrong("oauth2", "needs `client_id` and `token_url`", "add them");
        }
        if !oauth2.client_secret.is_empty() && !oauth2.client_secret_file.is_empty() {
            wrong(
                "oauth2",
                "has both `client_secret` and `client_secret_file`",
                "keep one",
            );
        }
        if present(&oauth2.proxy_url) || oauth2.proxy_from_environment == Some(true) {
            wrong(
                "oauth2",
                "Karez fetches no token through a proxy",
                "remove the proxy",
            );
        }
    }
    check_proxy(document, wrong);
    check_headers(document, wrong);
    if let Some(tls) = &document.tls_config {
        check_tls(tls, wrong);
    }
}

fn check_proxy(document: &HttpDocument, wrong: &mut impl FnMut(&str, &str, &str)) {
    let written = document.proxy_url.as_ref().is_some_and(|url| !url.is_empty());
    if written {
        wrong("proxy_url", "Karez does not scrape through a proxy", "remove it");
    }
    if document.proxy_from_environment == Some(true) {
        let message = "Karez does not scrape through a proxy";
        wrong("proxy_from_environment", message, "remove it");
    }
    if document
        .proxy_connect_header
        .as_ref()
        .is_some_and(|h| !h.is_empty())
    {
        wrong(
            "proxy_connect_header",
            "Karez does not scrape through a proxy",
            "remove it",
        );
    }
}

fn check_headers(document: &HttpDocument, wrong: &mut impl FnMut(&str, &str, &str)) {
    let headers = document.http_headers.iter().flatten();
    if headers
        .into_iter()
        .any(|(name, _)| RESERVED_HEADERS.contains(&name.to_lowercase().as_str()))
    {
        wrong(
            "http_headers",
            "sets a header that Karez sets itself",
            "remove it, or use the key meant for it",
        );
    }
}

fn check_tls(tls: &Tls, wrong: &mut impl FnMut(&str, &str, &str)) {
    let certificate = !tls.cert.is_empty() || !tls.cert_file.is_empty();
    let key = !tls.key.is_empty() || !tls.key_file.is_empty();
    if certificate != key {
        wrong(
            "tls_config",
            "a certificate and its key belong together",
            "write both",
        );
    }
    for version in [&tls.min_version, &tls.max_version] {
        if !matches!(version.as_str(), "" | "TLS12" | "TLS13") {
            wrong(
                "tls_config",
                "a TLS version is not supported",
                "write TLS12 or TLS13",
            );
        }
    }
}
