//! Extension `oidc`: callers bring a token of an OpenID provider.
//!
//! ```text
//! start:   issuer ─discovery─▶ jwks_uri ─▶ keys        (a provider that cannot be found refuses the start)
//! request: header ─▶ token ─▶ provider by its `iss` ─▶ key by its `kid` ─▶ signature, issuer, audience, times
//!                                                     └─ unknown: the keys are read again, at most every two seconds
//! ```

mod keys;
mod provider;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName};
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Header, decode_header};
use karez_collector_config::common::ClientTls;
use karez_collector_config::extensions::Oidc;
use serde::Deserialize;

use self::provider::{Provider, ProviderError};
use super::{AuthError, Principal, ServerAuth};
use crate::component::{ComponentContext, Extension, Running, StartError};
use crate::tls;

/// How often the keys are read without a reason, so that one that was withdrawn is forgotten.
const READ_AGAIN: Duration = Duration::from_secs(300);
/// Longer tokens are not looked at.
const MAX_TOKEN: usize = 16 << 10;

/// Extension `oidc`.
pub struct OidcExtension {
    config: Oidc,
    auth: OnceLock<Arc<OidcAuth>>,
}

impl OidcExtension {
    /// Takes its configuration.
    pub fn new(config: Oidc) -> Self {
        Self {
            config,
            auth: OnceLock::new(),
        }
    }

    async fn begin(&self, cx: &ComponentContext) -> Result<Running, StartError> {
        let mut providers = Vec::new();
        for (key, config) in self.config.all() {
            let trust = ClientTls {
                ca_file: config.issuer_ca_path.clone(),
                ..ClientTls::default()
            };
            let tls = tls::client(&trust, &[b"http/1.1"], &format!("{key}issuer_ca_path"))?;
            let found = Provider::find(config, &cx.net, tls).await;
            providers.push(found.map_err(|error| wrong(&key, &error))?);
        }
        let attribute = self.config.attribute.to_ascii_lowercase();
        let header = HeaderName::try_from(attribute.as_str()).map_err(|_| {
            let message = format!("{attribute:?} is no header name");
            StartError::config(
                "attribute",
                message,
                "write a header's name, such as authorization",
            )
        })?;
        let auth = Arc::new(OidcAuth { header, providers });
        let mut running = Running::none();
        let (stop, follower) = (running.stopping(), auth.clone());
        running.spawn(async move {
            let follow = async {
                loop {
                    tokio::time::sleep(READ_AGAIN).await;
                    for provider in &follower.providers {
                        provider.refresh().await;
                    }
                }
            };
            tokio::select! { () = follow => {}, () = stop.triggered() => {} }
        });
        let _ = self.auth.set(auth);
        Ok(running)
    }
}

impl Extension for OidcExtension {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(self.begin(cx))
    }

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.auth.get().map(|auth| auth.clone() as Arc<dyn ServerAuth>)
    }
}

fn wrong(key: &str, error: &ProviderError) -> StartError {
    let (part, mend) = match error {
        ProviderError::File { .. } | ProviderError::NoKeys(_) => (
            "public_keys_file",
            "name a PEM file with the provider's public keys",
        ),
        ProviderError::Issuer { .. } => ("issuer_url", "write the URL as the provider calls itself"),
        _ => (
            "issuer_url",
            "check that the provider runs and can be reached from here, and that issuer_ca_path signed its certificate",
        ),
    };
    StartError::config(format!("{key}{part}"), error.to_string(), mend)
}

/// Checks callers against the providers.
struct OidcAuth {
    header: HeaderName,
    providers: Vec<Provider>,
}

impl std::fmt::Debug for OidcAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let issuers = self.providers.iter().map(Provider::issuer);
        f.debug_list().entries(issuers).finish()
    }
}

/// A token whose signature has not been checked.
struct Unchecked<'a> {
    token: &'a str,
    header: Header,
    provider: &'a Provider,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

impl OidcAuth {
    fn read<'a>(&'a self, headers: &'a HeaderMap) -> Result<Unchecked<'a>, AuthError> {
        let given = headers.get(&self.header).ok_or(AuthError::NotAuthenticated)?;
        let text = given.to_str().map_err(|_| AuthError::InvalidHeader)?;
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(AuthError::InvalidHeader),
        };
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Token("it is too long".to_owned()));
        }
        let unreadable = |_| AuthError::Token("it cannot be read".to_owned());
        let header = decode_header(token).map_err(unreadable)?;
        if !keys::is_accepted(header.alg) {
            return Err(AuthError::Token("its algorithm is not accepted".to_owned()));
        }
        let issuer: Issuer = insecure_decode_claims(token).map_err(unreadable)?;
        let provider = self
            .providers
            .iter()
            .find(|provider| provider.issuer() == issuer.iss);
        Ok(Unchecked {
            token,
            header,
            provider: provider.ok_or_else(|| AuthError::Token("it is of another issuer".to_owned()))?,
        })
    }
}

impl Unchecked<'_> {
    fn check(&self) -> Result<Principal, AuthError> {
        let claims = self.provider.check(self.token, &self.header)?;
        self.provider.who(&claims)
    }
}

impl ServerAuth for OidcAuth {
    /// May wait for the provider's keys: called where waiting holds up nothing else.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let token = self.read(headers)?;
        if !token.provider.knows(&token.header) {
            tokio::runtime::Handle::current().block_on(token.provider.refresh());
        }
        token.check()
    }

    fn authenticate_at_once(&self, headers: &HeaderMap) -> Option<Result<Principal, AuthError>> {
        match self.read(headers) {
            Ok(token) if token.provider.knows(&token.header) => Some(token.check()),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
