//! A claim at its holder: a `token-claim` Secret in, the same Secret as a `connection-token` out.
//!
//! One task a claim asks until it has a token, is told that there is none, or the Secret goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use karez_identity::{
    CLAIM_VERSION, Claim, ClaimError, ConnectionToken, TlsError, TokenError, certificate_reason,
    trusting_client_config,
};
use karez_kubernetes::{FIELD_MANAGER_SERVICE, labels};
use karez_net::{ConnectError, Net};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use rustls_pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::plan::tokens::kind;
use crate::site_controller::Chain;

/// The longest answer: a token has a few KiB.
const ANSWER_LIMIT: usize = 512 * 1024;
/// A whole exchange; the issuer has its own patience inside.
const EXCHANGE: Duration = Duration::from_secs(60);
/// The first and the longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Tries to write a token that was given once only.
const WRITES: usize = 20;

/// Why a claim is not redeemed.
#[derive(Debug, thiserror::Error)]
enum RedeemError {
    #[error("{0}")]
    Claim(#[from] ClaimError),
    #[error("data.ca.crt: {0}")]
    Authority(#[from] TlsError),
    #[error("the host of {0} is no name that a certificate can have")]
    Host(String),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Tls(String),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("{status} {text}")]
    Status { status: u16, text: String },
    #[error("no answer in time")]
    Late,
    #[error("the answer is no token: {0}")]
    Answer(String),
    #[error("the answer is no token: {0}")]
    Token(#[from] TokenError),
    #[error("the answer is a token of another site than the claim's")]
    OtherSite,
    #[error("the token cannot be kept: {0}")]
    Write(#[source] Box<kube::Error>),
}

impl RedeemError {
    /// Whether asking again cannot help.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Claim(_)
                | Self::Authority(_)
                | Self::Host(_)
                | Self::OtherSite
                | Self::Status { status: 404, .. }
        )
    }
}

/// The tasks, one a claim.
pub(crate) struct Redeemer {
    client: Client,
    namespace: String,
    site_id: String,
    net: Net,
    running: BTreeMap<String, JoinHandle<()>>,
}

impl Redeemer {
    /// For one site.
    pub(crate) fn new(client: Client, namespace: String, site_id: String, net: Net) -> Self {
        Self {
            client,
            namespace,
            site_id,
            net,
            running: BTreeMap::new(),
        }
    }

    /// Sees to it that each open claim is being redeemed.
    pub(crate) fn see_to(&mut self, secrets: &[Secret]) {
        self.running.retain(|_, task| !task.is_finished());
        for secret in secrets.iter().filter(|secret| is_open(secret)) {
            let name = secret.name_any();
            if self.running.contains_key(&name) {
                continue;
            }
            let task = Task {
                api: Api::namespaced(self.client.clone(), &self.namespace),
                name: name.clone(),
                site_id: self.site_id.clone(),
                net: self.net.clone(),
            };
            self.running.insert(name, tokio::spawn(task.run()));
        }
    }
}

impl Drop for Redeemer {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

/// A claim that is to be redeemed still.
fn is_open(secret: &Secret) -> bool {
    kind(secret) == Some(labels::TYPE_CLAIM)
        && secret.metadata.deletion_timestamp.is_none()
        && !secret.annotations().contains_key(labels::CLAIM_LAST_FAILED)
}

struct Task {
    api: Api<Secret>,
    name: String,
    site_id: String,
    net: Net,
}

impl Task {
    async fn run(self) {
        let mut pause = PAUSES.0;
        loop {
            let secret = match self.api.get_opt(&self.name).await {
                Ok(Some(secret)) if is_open(&secret) => secret,
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(%error, claim = self.name, "cannot read a claim");
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            let redeemed = match timeout(EXCHANGE, self.redeem(&secret)).await {
                Ok(redeemed) => redeemed,
                Err(_) => Err(RedeemError::Late),
            };
            let error = match redeemed {
                Ok(token) => match self.keep(&token).await {
                    Ok(()) => return tracing::info!(claim = self.name, "a claim was redeemed"),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let is_final = error.is_final();
            let text = format!("Failed to redeem claim: {}", Chain(&error));
            tracing::warn!(claim = self.name, is_final, "{text}");
            self.note(&text, is_final).await;
            if is_final {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn redeem(&self, secret: &Secret) -> Result<Secret, RedeemError> {
        let data = secret.data.iter().flatten();
        let data = data.map(|(key, value)| (key.clone(), value.0.clone())).collect();
        let claim = Claim::from_secret_parts(&self.name, secret.annotations(), &data)?;
        let body = self.ask(&claim).await?;
        let token: Secret =
            serde_saphyr::from_slice(&body).map_err(|error| RedeemError::Answer(error.to_string()))?;
        let data = token.data.iter().flatten();
        let data = data.map(|(key, value)| (key.clone(), value.0.clone())).collect();
        let read =
            ConnectionToken::from_secret_parts(&self.name, token.labels(), token.annotations(), &data)?;
        if !claim.generated_by.is_empty() && claim.generated_by != read.generated_by {
            return Err(RedeemError::OtherSite);
        }
        Ok(token)
    }

    /// One exchange with the claims server, which is believed by the claim's authority alone.
    async fn ask(&self, claim: &Claim) -> Result<Bytes, RedeemError> {
        let config = trusting_client_config(&claim.ca_pem, &[b"http/1.1"])?;
        let name = ServerName::try_from(claim.host.clone()).map_err(|_| RedeemError::Host(claim.url()))?;
        let stream = self.net.connect_tcp(&claim.host, claim.port).await?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| RedeemError::Tls(tls_reason(&error)))?;
        let (mut requests, connection) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::post(format!("/{}?site-version={CLAIM_VERSION}", claim.record))
            .header(header::HOST, format!("{}:{}", claim.host, claim.port))
            .header("skupper-site-name", &self.site_id)
            .body(Full::new(Bytes::from(claim.password.clone())))
            .map_err(|error| RedeemError::Answer(error.to_string()))?;
        let answered = async {
            let response = requests.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body
                .map_err(|error| RedeemError::Answer(error.to_string()))?
                .to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let text = String::from_utf8_lossy(&body);
            let text = text.trim().chars().filter(|c| !c.is_control()).take(200);
            Err(RedeemError::Status {
                status: status.as_u16(),
                text: text.collect(),
            })
        };
        let answered = answered.await;
        driver.abort();
        answered
    }

    /// Makes the claim a token: label and annotations merged, data replaced. It was given once, so it is kept with care.
    async fn keep(&self, token: &Secret) -> Result<(), RedeemError> {
        let mut last = None;
        for _ in 0..WRITES {
            let written = async {
                let mut secret = self.api.get(&self.name).await?;
                secret.labels_mut().extend(token.labels().clone());
                secret.annotations_mut().extend(token.annotations().clone());
                secret.annotations_mut().remove(labels::CLAIM_STATUS);
                secret.data = token.data.clone();
                self.api.replace(&self.name, &by_us(), &secret).await
            };
            match written.await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        last.map_or(Ok(()), |error| Err(RedeemError::Write(Box::new(error))))
    }

    /// Says on the claim itself how it is.
    async fn note(&self, text: &str, is_final: bool) {
        for _ in 0..3 {
            let Ok(Some(mut secret)) = self.api.get_opt(&self.name).await else {
                return;
            };
            let annotations = secret.annotations_mut();
            annotations.insert(labels::CLAIM_STATUS.to_owned(), text.to_owned());
            if is_final {
                annotations.insert(labels::CLAIM_LAST_FAILED.to_owned(), Timestamp::now().to_string());
            }
            if self.api.replace(&self.name, &by_us(), &secret).await.is_ok() {
                return;
            }
        }
    }
}

/// What a failed handshake means to the one who holds the claim.
fn tls_reason(error: &std::io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => format!(
            "the claims server is not the claim's site: {}",
            certificate_reason(reason)
        ),
        _ => format!("TLS: {error}"),
    }
}

fn by_us() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER_SERVICE.to_owned()),
        ..PostParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::strings;

    #[test]
    fn only_an_open_claim_is_redeemed() {
        let mut secret = Secret::default();
        assert!(!is_open(&secret));
        secret.metadata.labels = Some(strings([(labels::TYPE, labels::TYPE_CLAIM)]));
        assert!(is_open(&secret));
        secret.metadata.annotations = Some(strings([(labels::CLAIM_LAST_FAILED, "2026-01-01T00:00:00Z")]));
        assert!(!is_open(&secret));
    }

    #[test]
    fn only_what_asking_again_cannot_mend_is_final() {
        let status = |status| RedeemError::Status {
            status,
            text: String::new(),
        };
        assert!(status(404).is_final());
        assert!(RedeemError::OtherSite.is_final());
        assert!(!status(403).is_final());
        assert!(!status(503).is_final());
        assert!(!RedeemError::Late.is_final());
    }

    #[test]
    fn an_answer_is_read_as_a_secret() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: t\ndata:\n  tls.crt: QQ==\n";
        let secret: Secret = serde_saphyr::from_slice(text.as_bytes()).unwrap();
        assert_eq!(secret.data.unwrap()["tls.crt"].0, b"A");
    }
}
