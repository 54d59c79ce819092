//! What the router says: its local API, asked over mutual TLS, and asked again as soon as something changes.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use karez_document::watch_secret;
use karez_identity::{LOCAL_SERVER_NAME, TlsError, TlsMaterial, client_config};
use karez_kubernetes::names;
use karez_net::{ConnectError, Net};
use karez_router_config::api::{STATUS_PATH, Status};
use kube::Client;
use rustls_pki_types::ServerName;
use tokio::sync::watch;

use crate::site_controller::Chain;

/// The largest answer that is read.
const ANSWER_LIMIT: usize = 16 << 20;
/// The router answers a waiting request after half a minute at the latest.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// Why the router could not be asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("Secret skupper-local-client: {0}")]
    Credential(#[from] TlsError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("TLS with the router: {0}")]
    Tls(#[source] std::io::Error),
    #[error("HTTP with the router: {0}")]
    Http(#[from] hyper::Error),
    #[error("the router's answer: {0}")]
    Answer(String),
    #[error("no answer in time")]
    Late,
}

/// Follows the router's status until nobody listens. `None` while the router cannot be reached.
pub(crate) fn follow(client: Client, namespace: String, net: Net) -> watch::Receiver<Option<Status>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut secret = watch_secret(&namespace, names::LOCAL_CLIENT, client).await;
        let host = format!("{}.{namespace}", names::ROUTER_LOCAL);
        let mut failures = 0_u32;
        loop {
            let asked = async {
                let data = secret.wait_for(Option::is_some).await.ok()?.clone()?;
                Some(session(&net, &host, &data, &sender).await)
            };
            let ended = tokio::select! {
                ended = asked => ended,
                () = sender.closed() => return,
            };
            let Some(Err(error)) = ended else { return };
            sender.send_if_modified(|status| status.take().is_some());
            // The router starts at about the same time as we do: the first failures are expected.
            if failures > 5 && failures.is_power_of_two() {
                tracing::warn!(host, error = %Chain(&error), "the router does not answer");
            }
            failures = failures.saturating_add(1);
            tokio::time::sleep(PAUSE).await;
        }
    });
    receiver
}

/// One connection: asks until it fails.
async fn session(
    net: &Net,
    host: &str,
    data: &karez_document::SecretData,
    sender: &watch::Sender<Option<Status>>,
) -> Result<(), AskError> {
    let config = client_config(&TlsMaterial::from_secret(data)?, &[b"http/1.1"])?;
    let stream = net.connect_tcp(host, names::LOCAL_PORT).await?;
    let name = ServerName::try_from(LOCAL_SERVER_NAME).expect("the constant is a DNS name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(AskError::Tls)?;
    let (mut requests, connection) = handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let asked = ask_again_and_again(&mut requests, sender).await;
    driver.abort();
    asked
}

async fn ask_again_and_again(
    requests: &mut SendRequest<Empty<Bytes>>,
    sender: &watch::Sender<Option<Status>>,
) -> Result<(), AskError> {
    let mut since = None;
    loop {
        let asked = ask(requests, since);
        let status = tokio::time::timeout(ANSWER_WITHIN, asked)
            .await
            .map_err(|_| AskError::Late)??;
        since = Some(status.generation);
        sender.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&status);
            *known = Some(status);
            changed
        });
    }
}

async fn ask(requests: &mut SendRequest<Empty<Bytes>>, since: Option<u64>) -> Result<Status, AskError> {
    let path = since.map_or_else(
        || STATUS_PATH.to_owned(),
        |since| format!("{STATUS_PATH}?since={since}"),
    );
    let request = http::Request::get(path)
        .header(http::header::HOST, LOCAL_SERVER_NAME)
        .body(Empty::new())
        .map_err(|error| AskError::Answer(error.to_string()))?;
    requests.ready().await?;
    let response = requests.send_request(request).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(AskError::Answer(format!("HTTP status {status}")));
    }
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
    let bytes = body
        .map_err(|error| AskError::Answer(error.to_string()))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| AskError::Answer(error.to_string()))
}
