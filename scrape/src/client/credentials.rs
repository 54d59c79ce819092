//! What a request proves who asks with: headers, from the document or from files.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use karez_net::Net;
use karez_scrape_config::HttpConfig;
use karez_scrape_config::http::{Authorization, BasicAuth, OAuth2};
use karez_scrape_config::values::Secret;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::dial::Dial;
use super::{ClientError, chain, tls};

/// The largest file of credentials.
const MAX_FILE: u64 = 4 << 20;
/// The largest answer of a token server.
const MAX_TOKEN: usize = 1 << 20;
/// A token is renewed so long before it expires.
const EARLY: Duration = Duration::from_secs(10);

pub(super) struct Credentials {
    basic: Option<BasicAuth>,
    authorization: Option<Authorization>,
    oauth2: Option<Tokens>,
    headers: Vec<(HeaderName, Value)>,
}

enum Value {
    Text(HeaderValue),
    File(String),
}

impl Credentials {
    pub(super) fn new(config: &HttpConfig, net: &Net) -> Result<Self, ClientError> {
        let mut headers = Vec::new();
        for (name, header) in &config.headers {
            let key = HeaderName::try_from(name.as_str())
                .map_err(|_| ClientError::Request(format!("`{name}` is no name of a header")))?;
            let secrets = header.secrets.iter().map(Secret::expose);
            for text in header.values.iter().map(String::as_str).chain(secrets) {
                headers.push((key.clone(), Value::Text(value(name, text)?)));
            }
            let files = header
                .files
                .iter()
                .map(|file| (key.clone(), Value::File(file.clone())));
            headers.extend(files);
        }
        Ok(Credentials {
            basic: config.basic_auth.clone(),
            authorization: config.authorization.clone(),
            oauth2: match &config.oauth2 {
                Some(oauth2) => Some(Tokens::new(oauth2, net)?),
                None => None,
            },
            headers,
        })
    }

    /// Adds the headers to a request.
    pub(super) async fn add(&self, headers: &mut HeaderMap) -> Result<(), ClientError> {
        for (name, given) in &self.headers {
            let given = match given {
                Value::Text(text) => text.clone(),
                Value::File(file) => value(name.as_str(), &read_text(file).await?)?,
            };
            headers.append(name.clone(), given);
        }
        let proof = match (&self.basic, &self.authorization, &self.oauth2) {
            (Some(basic), ..) => {
                let user = text_or_file(&basic.username, &basic.username_file).await?;
                let password = text_or_file(basic.password.expose(), &basic.password_file).await?;
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
            (_, Some(authorization), _) => {
                let text = authorization.credentials.expose();
                let text = text_or_file(text, &authorization.credentials_file).await?;
                format!("{} {text}", authorization.kind)
            }
            (_, _, Some(tokens)) => format!("Bearer {}", tokens.get().await?.expose()),
            _ => return Ok(()),
        };
        headers.insert(header::AUTHORIZATION, value("authorization", &proof)?);
        Ok(())
    }
}

fn value(name: &str, text: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| ClientError::Request(format!("the value of the header `{name}` cannot be sent")))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn text_or_file(text: &str, file: &str) -> Result<String, ClientError> {
    match file.is_empty() {
        true => Ok(text.to_owned()),
        false => read_text(file).await,
    }
}

async fn read_text(file: &str) -> Result<String, ClientError> {
    let name = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read_blocking(&name)).await;
    let bytes = read.map_err(|error| fault(file, &error.to_string()))??;
    let text = String::from_utf8(bytes).map_err(|_| fault(file, "is no text in UTF-8"))?;
    Ok(text.trim().to_owned())
}

fn fault(file: &str, reason: &str) -> ClientError {
    ClientError::File {
        file: file.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Reads a file that may not be large.
pub(super) fn read_blocking(file: &str) -> Result<Vec<u8>, ClientError> {
    let path = PathBuf::from(file);
    let length = std::fs::metadata(&path)
        .map_err(|error| fault(file, &format!("cannot be read: {error}")))?
        .len();
    if length > MAX_FILE {
        return Err(fault(file, "is too large"));
    }
    std::fs::read(&path).map_err(|error| fault(file, &format!("cannot be read: {error}")))
}

/// Tokens by client credentials, kept until shortly before they expire.
struct Tokens {
    config: OAuth2,
    client: legacy::Client<Dial, Full<Bytes>>,
    current: Mutex<Option<(Secret, Instant)>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl Tokens {
    fn new(config: &OAuth2, net: &Net) -> Result<Self, ClientError> {
        let tls_config = config.tls_config.clone().unwrap_or_default();
        let dial = Dial {
            net: net.clone(),
            tls: tls::client(&tls_config, &[b"http/1.1"])?,
            server_name: tls_config.server_name,
        };
        Ok(Tokens {
            config: config.clone(),
            client: legacy::Client::builder(TokioExecutor::new()).build(dial),
            current: Mutex::default(),
        })
    }

    async fn get(&self) -> Result<Secret, ClientError> {
        let mut current = self.current.lock().await;
        if let Some((token, until)) = current.as_ref()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let answer = self.fetch().await?;
        let seconds = answer
            .expires_in
            .filter(|s| s.is_finite())
            .unwrap_or(300.0)
            .clamp(0.0, 86_400.0);
        let life = Duration::from_secs_f64(seconds).saturating_sub(EARLY);
        *current = Some((answer.access_token.clone(), Instant::now() + life));
        Ok(answer.access_token)
    }

    async fn fetch(&self) -> Result<TokenAnswer, ClientError> {
        let config = &self.config;
        let secret = text_or_file(config.client_secret.expose(), &config.client_secret_file).await?;
        let user = format!("{}:{}", form_encoded(&config.client_id), form_encoded(&secret));
        let request = Request::builder()
            .method(Method::POST)
            .uri(&config.token_url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(
                header::AUTHORIZATION,
                value("authorization", &format!("Basic {}", STANDARD.encode(user)))?,
            )
            .body(Full::new(Bytes::from(form(config))))
            .map_err(|error| ClientError::Token(error.to_string()))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| ClientError::Token(chain(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_TOKEN).collect().await;
        let body = body
            .map_err(|error| ClientError::Token(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            return Err(ClientError::Token(format!(
                "{} answers {status}",
                config.token_url
            )));
        }
        serde_json::from_slice(&body)
            .map_err(|_| ClientError::Token(format!("{} answers no token", config.token_url)))
    }
}

fn form(config: &OAuth2) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !config.scopes.is_empty() {
        form.append_pair("scope", &config.scopes.join(" "));
    }
    for (name, value) in &config.endpoint_params {
        form.append_pair(name, value);
    }
    form.finish()
}

fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
