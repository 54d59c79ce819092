//! Credentials and TLS of a resource, with what Secrets hold put in.

use serde_json::{Map, Value, json};

use super::job::JobWriter;
use super::{Refusal, Secrets, flag, list, text};

/// Reads what an endpoint, a discovery or a scrape class says of credentials.
pub(super) struct Auth<'a> {
    pub(super) secrets: &'a Secrets,
    pub(super) namespace: &'a str,
}

impl Auth<'_> {
    /// Puts everything that is there into a job or a discovery.
    pub(super) fn put_all(&self, from: &Value, into: &mut JobWriter) -> Result<(), Refusal> {
        into.text("bearer_token_file", text(from, "bearerTokenFile"));
        if let Some(token) = self.secret(from.get("bearerTokenSecret"))? {
            into.put("bearer_token", token);
        }
        if let Some(basic) = from.get("basicAuth").filter(|basic| !basic.is_null()) {
            into.put("basic_auth", self.basic(basic)?);
        }
        if let Some(authorization) = from.get("authorization").filter(|block| !block.is_null()) {
            into.put("authorization", self.authorization(authorization)?);
        }
        if let Some(oauth2) = from.get("oauth2").filter(|block| !block.is_null()) {
            into.put("oauth2", self.oauth2(oauth2)?);
        }
        if let Some(tls) = from.get("tlsConfig").filter(|block| !block.is_null()) {
            into.put("tls_config", self.tls(tls)?);
        }
        Ok(())
    }

    fn secret(&self, selector: Option<&Value>) -> Result<Option<String>, Refusal> {
        self.secrets.value(self.namespace, selector, true)
    }

    fn basic(&self, basic: &Value) -> Result<Value, Refusal> {
        let mut block = Map::new();
        for key in ["username", "password"] {
            if let Some(value) = self.secret(basic.get(key))? {
                block.insert(key.to_owned(), value.into());
            }
        }
        Ok(Value::Object(block))
    }

    pub(super) fn authorization(&self, written: &Value) -> Result<Value, Refusal> {
        let kind = Some(text(written, "type").trim()).filter(|kind| !kind.is_empty());
        let mut block = Map::new();
        block.insert("type".to_owned(), kind.unwrap_or("Bearer").into());
        if let Some(credentials) = self.secret(written.get("credentials"))? {
            block.insert("credentials".to_owned(), credentials.into());
        }
        let file = text(written, "credentialsFile");
        if !file.is_empty() {
            block.insert("credentials_file".to_owned(), file.into());
        }
        Ok(Value::Object(block))
    }

    fn oauth2(&self, written: &Value) -> Result<Value, Refusal> {
        let mut block = Map::new();
        let id = self.secrets.either(self.namespace, written.get("clientId"))?;
        block.insert("client_id".to_owned(), id.unwrap_or_default().into());
        if let Some(secret) = self.secret(written.get("clientSecret"))? {
            block.insert("client_secret".to_owned(), secret.into());
        }
        block.insert("token_url".to_owned(), text(written, "tokenUrl").into());
        if !list(written, "scopes").is_empty() {
            block.insert("scopes".to_owned(), list(written, "scopes").into());
        }
        if let Some(params) = written.get("endpointParams") {
            block.insert("endpoint_params".to_owned(), params.clone());
        }
        if let Some(tls) = written.get("tlsConfig") {
            block.insert("tls_config".to_owned(), self.tls(tls)?);
        }
        Ok(Value::Object(block))
    }

    pub(super) fn tls(&self, written: &Value) -> Result<Value, Refusal> {
        let mut block = Map::new();
        for (from, to) in [
            ("caFile", "ca_file"),
            ("certFile", "cert_file"),
            ("keyFile", "key_file"),
            ("serverName", "server_name"),
            ("minVersion", "min_version"),
            ("maxVersion", "max_version"),
        ] {
            if !text(written, from).is_empty() {
                block.insert(to.to_owned(), text(written, from).into());
            }
        }
        for (from, to) in [("ca", "ca"), ("cert", "cert")] {
            if let Some(value) = self.secrets.either(self.namespace, written.get(from))? {
                block.insert(to.to_owned(), value.into());
            }
        }
        if let Some(key) = self.secret(written.get("keySecret"))? {
            block.insert("key".to_owned(), key.into());
        }
        block.insert(
            "insecure_skip_verify".to_owned(),
            json!(flag(written, "insecureSkipVerify").unwrap_or(false)),
        );
        Ok(Value::Object(block))
    }
}
