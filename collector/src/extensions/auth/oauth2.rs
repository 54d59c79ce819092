//! `oauth2client`: asks a provider for a token with our identifier and secret, and again before it ends.
//!
//! ```text
//! start ─▶ POST token_url ─▶ token, kept ─▶ [ClientAuth::headers]
//!               ▲─── expiry_buffer before its end; after a failure with back-off ───┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, header};
use karez_collector_config::common::HttpClient as HttpClientConfig;
use karez_collector_config::credentials as config;
use karez_collector_config::values::{Compression, Secret};
use karez_lifecycle::Shutdown;
use karez_lifecycle::volumes;
use serde::Deserialize;
use tokio::time::Instant;
use url::form_urlencoded::Serializer;

use super::{ClientAuth, CredentialsError};
use crate::client::HttpClient;
use crate::component::{ComponentContext, Extension, Running, StartError};

/// Waits between attempts after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// For how long a token whose end is not told is used.
const UNTOLD: Duration = Duration::from_secs(3600);

/// Extension `oauth2client`.
pub struct OAuth2ClientExtension {
    config: config::OAuth2Client,
    token: Arc<Token>,
}

/// The token, or why there is none.
#[derive(Default)]
struct Token(ArcSwap<Held>);

#[derive(Default)]
struct Held {
    header: Option<HeaderValue>,
    until: Option<Instant>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl ClientAuth for Token {
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialsError> {
        let held = self.0.load();
        let valid = held.until.is_none_or(|until| Instant::now() < until);
        match held.header.clone().filter(|_| valid) {
            Some(value) => Ok(vec![(header::AUTHORIZATION, value)]),
            None => Err(CredentialsError::Missing("the provider has given no token yet")),
        }
    }
}

/// What a provider answers.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl OAuth2ClientExtension {
    /// Takes its configuration.
    pub fn new(config: config::OAuth2Client) -> Self {
        OAuth2ClientExtension {
            config,
            token: Arc::default(),
        }
    }
}

impl Extension for OAuth2ClientExtension {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async {
            let asking = Asking {
                config: self.config.clone(),
                token: self.token.clone(),
                cx: cx.clone(),
            };
            asking.client(None)?;
            asking.credentials().map_err(|reason| {
                StartError::config(
                    "client_secret_file",
                    reason,
                    "mount the Secret that holds it, or correct the path",
                )
            })?;
            let mut running = Running::none();
            running.spawn(asking.run(running.stopping()));
            Ok(running)
        })
    }

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(self.token.clone())
    }
}

struct Asking {
    config: config::OAuth2Client,
    token: Arc<Token>,
    cx: ComponentContext,
}

impl Asking {
    async fn run(self, stop: Shutdown) {
        let mut wait = AGAIN.0;
        loop {
            let next = tokio::select! {
                asked = self.ask() => match asked {
                    Ok(lasts) => {
                        wait = AGAIN.0;
                        // A token that lasts shorter than the buffer is used for half its time.
                        (lasts - self.config.expiry_buffer.min(lasts / 2)).max(AGAIN.0)
                    }
                    Err(reason) => {
                        tracing::error!(component = self.cx.key, reason, "the provider gives no token; trying again");
                        let now = wait;
                        wait = (wait * 2).min(AGAIN.1);
                        now
                    }
                },
                () = stop.triggered() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = stop.triggered() => return,
            }
        }
    }

    fn client(&self, basic: Option<String>) -> Result<HttpClient, StartError> {
        let url = self.config.token_url.parse::<url::Url>().map_err(|error| {
            StartError::config(
                "token_url",
                format!("is no URL: {error}"),
                "write https://HOST/PATH",
            )
        })?;
        let mut client = HttpClientConfig {
            tls: self.config.tls.clone(),
            compression: Compression::None,
            ..HttpClientConfig::default()
        };
        if !self.config.timeout.is_zero() {
            client.timeout = self.config.timeout;
        }
        if let Some(basic) = basic {
            client
                .headers
                .insert("authorization".to_owned(), Secret::new(basic));
        }
        HttpClient::new(&client, url, &self.cx)
    }

    fn credentials(&self) -> Result<(String, String), String> {
        let read = |file: &str, text: &str| match file {
            "" => Ok(text.to_owned()),
            file => {
                let path = volumes::locate(std::path::Path::new(file));
                let read =
                    std::fs::read_to_string(path).map_err(|error| format!("{file} cannot be read: {error}"));
                read.map(|text| text.trim().to_owned())
            }
        };
        let config = &self.config;
        Ok((
            read(&config.client_id_file, &config.client_id)?,
            read(&config.client_secret_file, config.client_secret.expose())?,
        ))
    }

    /// Asks for a token, and says for how long it lasts.
    async fn ask(&self) -> Result<Duration, String> {
        let (id, secret) = self.credentials()?;
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encoded(&id), encoded(&secret));
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut answer = self.post(Some(basic), self.form(None)).await?;
        if matches!(answer.0, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            // Some providers read the credentials in the body only.
            answer = self.post(None, self.form(Some((&id, &secret)))).await?;
        }
        let (status, body) = answer;
        if !status.is_success() {
            let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let error = said
                .get("error")
                .and_then(|error| error.as_str())
                .unwrap_or_default();
            return Err(format!("{}: HTTP {status} {error}", self.config.token_url));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| format!("{}: the answer is no token: {error}", self.config.token_url))?;
        self.keep(&answer)
    }

    async fn post(&self, basic: Option<String>, form: String) -> Result<(StatusCode, Bytes), String> {
        let client = self.client(basic).map_err(|error| error.to_string())?;
        let posted = client
            .post("application/x-www-form-urlencoded", form.into())
            .await;
        let answer = posted.map_err(|error| format!("{}: {error}", self.config.token_url))?;
        Ok((answer.status, answer.body))
    }

    fn form(&self, credentials: Option<(&str, &str)>) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.config.scopes.is_empty() {
            form.append_pair("scope", &self.config.scopes.join(" "));
        }
        for (name, values) in &self.config.endpoint_params {
            for value in values.all() {
                form.append_pair(name, value);
            }
        }
        if let Some((id, secret)) = credentials {
            form.append_pair("client_id", id);
            form.append_pair("client_secret", secret);
        }
        form.finish()
    }

    fn keep(&self, answer: &Answer) -> Result<Duration, String> {
        let scheme = match answer.token_type.as_deref() {
            None | Some("") => "Bearer",
            Some(kind) if kind.eq_ignore_ascii_case("bearer") => "Bearer",
            Some(kind) => kind,
        };
        let value = HeaderValue::try_from(format!("{scheme} {}", answer.access_token));
        let mut value = value.map_err(|_| "the token cannot be sent as a header".to_owned())?;
        value.set_sensitive(true);
        let seconds = answer.expires_in.as_ref().and_then(|value| match value {
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let lasts = seconds
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.min(31_536_000)));
        self.token.0.store(Arc::new(Held {
            header: Some(value),
            until: lasts.map(|lasts| Instant::now() + lasts),
        }));
        Ok(lasts.unwrap_or(UNTOLD))
    }
}
