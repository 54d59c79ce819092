//! The two authenticators as components.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use karez_collector_config::extensions as config;

use super::{BasicAuthClient, BasicAuthServer, BearerConfig, BearerTokenAuth, ClientAuth, ClientAuthConfig};
use super::{CredentialsError, HtpasswdConfig, ServerAuth};
use crate::component::{ComponentContext, Extension, Running, StartError};

/// Extension `basicauth`. Its files are read when it starts.
pub struct BasicAuthExtension {
    config: config::BasicAuth,
    server: OnceLock<Arc<dyn ServerAuth>>,
    client: OnceLock<Arc<dyn ClientAuth>>,
}

impl BasicAuthExtension {
    /// Takes its configuration.
    pub fn new(config: config::BasicAuth) -> Self {
        Self {
            config,
            server: OnceLock::new(),
            client: OnceLock::new(),
        }
    }

    fn begin(&self) -> Result<(), StartError> {
        if let Some(htpasswd) = &self.config.htpasswd {
            let users = HtpasswdConfig {
                file: path(&htpasswd.file),
                inline: htpasswd.inline.expose().to_owned(),
            };
            let server = BasicAuthServer::new(&users).map_err(|error| wrong("htpasswd", &error))?;
            let _ = self.server.set(Arc::new(server));
        }
        if let Some(client) = &self.config.client_auth {
            let credentials = ClientAuthConfig {
                username: client.username.clone(),
                password: client.password.expose().to_owned(),
                username_file: path(&client.username_file),
                password_file: path(&client.password_file),
            };
            let client = BasicAuthClient::new(&credentials).map_err(|error| wrong("client_auth", &error))?;
            let _ = self.client.set(Arc::new(client));
        }
        Ok(())
    }
}

impl Extension for BasicAuthExtension {
    fn start<'a>(&'a self, _: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async { self.begin().map(|()| Running::none()) })
    }

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.server.get().cloned()
    }

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.client.get().cloned()
    }
}

/// Extension `bearertokenauth`. Its file is read when it starts, and again when it changes.
pub struct BearerTokenAuthExtension {
    config: config::BearerTokenAuth,
    auth: OnceLock<Arc<BearerTokenAuth>>,
}

impl BearerTokenAuthExtension {
    /// Takes its configuration.
    pub fn new(config: config::BearerTokenAuth) -> Self {
        Self {
            config,
            auth: OnceLock::new(),
        }
    }
}

impl Extension for BearerTokenAuthExtension {
    fn start<'a>(&'a self, _: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async {
            let config = &self.config;
            let tokens = BearerConfig {
                scheme: config.scheme.clone(),
                header: config.header.clone(),
                token: config.token.expose().to_owned(),
                tokens: config
                    .tokens
                    .iter()
                    .map(|token| token.expose().to_owned())
                    .collect(),
                filename: path(&config.filename),
            };
            let auth = BearerTokenAuth::new(&tokens).map_err(|error| wrong("", &error))?;
            let _ = self.auth.set(Arc::new(auth));
            Ok(Running::none())
        })
    }

    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.auth.get().map(|auth| auth.clone() as Arc<dyn ServerAuth>)
    }

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.auth.get().map(|auth| auth.clone() as Arc<dyn ClientAuth>)
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn wrong(key: &str, error: &CredentialsError) -> StartError {
    let mend = match error {
        CredentialsError::File { .. } => "mount the Secret that holds it, or correct the path",
        CredentialsError::Htpasswd { .. } => "write lines of `user:hash`, as `htpasswd -nB user` prints them",
        CredentialsError::HeaderName(_) => "write a header's name, such as Authorization",
        CredentialsError::NotAHeader(_) | CredentialsError::Missing(_) => "correct the credentials",
    };
    let why = std::error::Error::source(error)
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    StartError::config(key, format!("{error}{why}"), mend)
}
