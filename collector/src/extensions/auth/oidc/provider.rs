//! One OpenID provider: discovery at the start, keys that follow its rotation, the check of a token.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode};
use karez_collector_config::extensions::OidcProvider;
use karez_lifecycle::volumes;
use karez_net::Net;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::super::AuthError;
use super::keys::Keys;
use crate::client::{FetchError, fetch};

/// What clocks may differ by.
const LEEWAY: u64 = 5;
/// The keys are not asked for more often than this, whatever tokens come.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Callers that wait for keys at once; more are refused.
const WAITING: u32 = 16;
/// The largest file of keys.
const MAX_FILE: u64 = 1 << 20;

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// Its address is none.
    #[error("{0:?} is no URL")]
    Url(String),
    /// It does not answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It answers something else.
    #[error("{url} is no document of an OpenID provider: {source}")]
    Document {
        /// What was read.
        url: Url,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It calls itself differently.
    #[error("the provider calls itself {found:?}, configured is {asked:?}")]
    Issuer {
        /// What it says.
        found: String,
        /// What the configuration says.
        asked: String,
    },
    /// No key that could check a signature.
    #[error("{0} holds no public key that can check a token")]
    NoKeys(String),
    /// The file of keys cannot be read.
    #[error("the file {path} cannot be read: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// A provider that was found.
pub(super) struct Provider {
    config: OidcProvider,
    source: Option<Source>,
    keys: ArcSwap<Keys>,
    asked: Mutex<Instant>,
    waiting: AtomicU32,
}

/// Where keys come from.
struct Source {
    net: Net,
    tls: Arc<ClientConfig>,
    url: Url,
}

impl Provider {
    /// Finds a provider and reads its keys, from its file of keys if one is named.
    pub(super) async fn find(
        config: OidcProvider,
        net: &Net,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, ProviderError> {
        let (source, keys) = match config.public_keys_file.as_str() {
            "" => {
                let source = discover(&config.issuer_url, net, tls).await?;
                let keys = source.keys().await?;
                (Some(source), keys)
            }
            file => (None, keys_of_file(file)?),
        };
        Ok(Self {
            config,
            source,
            keys: ArcSwap::from_pointee(keys),
            asked: Mutex::new(Instant::now()),
            waiting: AtomicU32::new(0),
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.config.issuer_url
    }

    /// Whether a key is there that may have signed the token, or there is no use in asking for one.
    pub(super) fn knows(&self, header: &Header) -> bool {
        let known = self.keys.load().candidates(header).next().is_some();
        known || self.source.is_none() || self.waiting.load(Ordering::Relaxed) >= WAITING
    }

    /// Reads the keys again, unless that was done just now. The old ones stay when it fails.
    pub(super) async fn refresh(&self) {
        let Some(source) = &self.source else { return };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut asked = self.asked.lock().await;
        if asked.elapsed() >= ASK_AGAIN {
            match source.keys().await {
                Ok(keys) => self.keys.store(Arc::new(keys)),
                Err(error) => tracing::warn!(
                    issuer = self.config.issuer_url,
                    %error,
                    "the provider's keys cannot be read again; those known are used on"
                ),
            }
            *asked = Instant::now();
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Checks signature, issuer, audience and times of a token, and gives its claims.
    pub(super) fn check(&self, token: &str, header: &Header) -> Result<Map<String, Value>, AuthError> {
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer_url]);
        let mut required = vec!["exp", "iss"];
        if self.config.ignore_audience {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&[&self.config.audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        let keys = self.keys.load();
        let mut last = AuthError::Token("no key of the provider has signed it".to_owned());
        for candidate in keys.candidates(header) {
            match decode(token, &candidate.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => last = AuthError::Token(told(&error)),
            }
        }
        Err(last)
    }

    /// The user and groups that the claims name.
    pub(super) fn who(&self, claims: &Map<String, Value>) -> Result<super::super::Principal, AuthError> {
        let claim = Some(&self.config.username_claim).filter(|claim| !claim.is_empty());
        let name = claims.get(claim.map_or("sub", String::as_str));
        let username = match (name, claim) {
            (Some(Value::String(name)), _) => Some(name.clone()),
            (_, None) => None,
            (_, Some(claim)) => return Err(AuthError::Claim(claim.clone())),
        };
        let groups = match self.config.groups_claim.as_str() {
            "" => Vec::new(),
            claim => match claims.get(claim) {
                Some(Value::String(group)) => vec![group.clone()],
                Some(Value::Array(groups)) => groups
                    .iter()
                    .filter_map(|group| Some(group.as_str()?.to_owned()))
                    .collect(),
                _ => return Err(AuthError::Claim(claim.to_owned())),
            },
        };
        Ok(super::super::Principal { username, groups })
    }
}

/// A reason for the caller, without anything of the token.
fn told(error: &jsonwebtoken::errors::Error) -> String {
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(claim) => return format!("it lacks the claim {claim}"),
        _ => "it cannot be read",
    }
    .to_owned()
}

impl Source {
    async fn keys(&self) -> Result<Keys, ProviderError> {
        let document = fetch(&self.net, &self.url, &self.tls).await?;
        let keys = Keys::published(&document).map_err(|source| ProviderError::Document {
            url: self.url.clone(),
            source,
        })?;
        match keys.is_empty() {
            true => Err(ProviderError::NoKeys(self.url.to_string())),
            false => Ok(keys),
        }
    }
}

async fn discover(issuer: &str, net: &Net, tls: Arc<ClientConfig>) -> Result<Source, ProviderError> {
    let well_known = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let url = Url::parse(&well_known).map_err(|_| ProviderError::Url(issuer.to_owned()))?;
    let document = fetch(net, &url, &tls).await?;
    let discovery: Discovery =
        serde_json::from_slice(&document).map_err(|source| ProviderError::Document { url, source })?;
    if discovery.issuer != issuer {
        return Err(ProviderError::Issuer {
            found: discovery.issuer,
            asked: issuer.to_owned(),
        });
    }
    Ok(Source {
        net: net.clone(),
        tls,
        url: Url::parse(&discovery.jwks_uri).map_err(|_| ProviderError::Url(discovery.jwks_uri))?,
    })
}

fn keys_of_file(file: &str) -> Result<Keys, ProviderError> {
    let path = volumes::locate(Path::new(file));
    let failed = |source| ProviderError::File {
        path: file.to_owned(),
        source,
    };
    let metadata = std::fs::metadata(&path).map_err(failed)?;
    if metadata.len() > MAX_FILE {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    let keys = Keys::of_pem(&std::fs::read_to_string(&path).map_err(failed)?);
    match keys.is_empty() {
        true => Err(ProviderError::NoKeys(file.to_owned())),
        false => Ok(keys),
    }
}
