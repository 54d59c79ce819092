//! Several allocators, one answer: who follows asks the one that leads, for collectors and for itself.
//!
//! ```text
//! collector ─▶ follower ─ its question ─▶ leader ─▶ its answer        the leader is gone: the follower's own answer,
//!              follower ─ GET /peers/assignment?since=… ─▶ leader     which says the same
//! ```
//!
//! What holds secrets is asked over mutual TLS, with the certificate that this allocator serves with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use karez_allocation::Copy;
use karez_identity::CertificateFacts;
use karez_lifecycle::{Shutdown, volumes};
use karez_net::Net;
use karez_scrape::client::{Answer, Client, ClientError};
use karez_scrape::config::HttpConfig;
use karez_scrape::config::http::Tls;
use tokio::sync::watch;

use crate::config::Https;
use crate::lease::{Peer, Standing};
use crate::shared::{Said, Shared};

/// Says who asks, so that nobody asks on.
pub(crate) const ASKED_BY: HeaderName = HeaderName::from_static("x-karez-allocator");
/// The largest answer that is passed on.
const MAX_PASSED: u64 = 256 << 20;
/// The largest copy of an assignment: sixteen million targets.
const MAX_COPY: u64 = 320 << 20;
/// How long an answer may take beside what it is held back.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a copy is waited for that says that nothing changed.
const WAIT: Duration = Duration::from_secs(20);
/// What comes within this time is copied together.
const TOGETHER: Duration = Duration::from_millis(50);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the leader's answer cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("it says not where it answers: set `karez.advertise` or POD_IP there")]
    NoAddress,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Copy(#[from] karez_allocation::CopyError),
    #[error("{file}: {reason}")]
    Certificate { file: String, reason: String },
}

/// What the leader is asked with.
pub(crate) struct Peers {
    net: Net,
    identity: String,
    https: Option<Https>,
    /// For plain HTTP and for TLS; made when they are needed, and anew after a failure.
    clients: [Mutex<Option<Client>>; 2],
}

impl Peers {
    pub(crate) fn new(net: Net, identity: String, https: Option<Https>) -> Self {
        Peers {
            net,
            identity,
            https,
            clients: [Mutex::new(None), Mutex::new(None)],
        }
    }

    fn client(&self, secure: bool) -> Result<Client, PeerError> {
        let place = &self.clients[usize::from(secure)];
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*place {
            return Ok(client.clone());
        }
        let config = match (&self.https, secure) {
            (Some(https), true) => HttpConfig {
                tls: tls(https)?,
                ..HttpConfig::default()
            },
            _ => HttpConfig::default(),
        };
        let client = Client::new(&config, &self.net)?;
        *place = Some(client.clone());
        Ok(client)
    }

    fn forget(&self, secure: bool) {
        let place = &self.clients[usize::from(secure)];
        *place.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn url(peer: &Peer, secure: bool, path: &str) -> Result<String, PeerError> {
        match (secure, &peer.https) {
            (true, Some(address)) => Ok(format!("https://{address}{path}")),
            (false, _) if !peer.http.is_empty() => Ok(format!("http://{}{path}", peer.http)),
            _ => Err(PeerError::NoAddress),
        }
    }

    fn headers(&self, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [header::ACCEPT, header::IF_NONE_MATCH] {
            if let Some(value) = asked.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let own = HeaderValue::from_str(&self.identity).unwrap_or(HeaderValue::from_static("-"));
        headers.insert(ASKED_BY, own);
        headers
    }

    /// The leader's answer to a question.
    pub(crate) async fn ask(
        &self,
        peer: &Peer,
        secure: bool,
        path: &str,
        asked: &HeaderMap,
        wait: Duration,
    ) -> Result<Answer, PeerError> {
        let url = Self::url(peer, secure, path)?;
        let client = self.client(secure)?;
        let answer = client
            .get(&url, &self.headers(asked), MAX_PASSED, wait + TIMEOUT)
            .await;
        let answer = answer.inspect_err(|_| self.forget(secure))?;
        match answer.status {
            // It does not lead any more.
            StatusCode::MISDIRECTED_REQUEST => Err(PeerError::Status(answer.status)),
            status if status.is_server_error() => Err(PeerError::Status(status)),
            _ => Ok(answer),
        }
    }

    /// Passes on what a collector says.
    pub(crate) async fn tell(
        &self,
        peer: &Peer,
        secure: bool,
        path: &str,
        body: Vec<u8>,
    ) -> Result<StatusCode, PeerError> {
        let url = Self::url(peer, secure, &format!("{path}?{ASKED_BY}"))?;
        let client = self.client(secure)?;
        let answer = client.post_json(&url, body, TIMEOUT).await;
        Ok(answer.inspect_err(|_| self.forget(secure))?)
    }

    async fn copy(&self, peer: &Peer, since: &str) -> Result<(Copy, String), PeerError> {
        let path = format!("/peers/assignment?since={since}&wait={}s", WAIT.as_secs());
        let url = Self::url(peer, false, &path)?;
        let client = self.client(false)?;
        let headers = self.headers(&HeaderMap::new());
        let answer = client.get(&url, &headers, MAX_COPY, WAIT + TIMEOUT).await?;
        if answer.status != StatusCode::OK {
            return Err(PeerError::Status(answer.status));
        }
        let tag = answer.header(header::ETAG).unwrap_or_default();
        let next = tag.trim_matches('"').to_owned();
        Ok((Copy::from_bytes(&answer.body)?, next))
    }
}

/// The certificate that is served with, and the name that every allocator's has.
fn tls(https: &Https) -> Result<Tls, PeerError> {
    let located = |file: &str| {
        let path = volumes::locate(std::path::Path::new(file));
        path.display().to_string()
    };
    let cert_file = located(&https.cert_file);
    let fault = |reason: String| PeerError::Certificate {
        file: https.cert_file.clone(),
        reason,
    };
    let pem = std::fs::read(&cert_file).map_err(|error| fault(error.to_string()))?;
    let facts = CertificateFacts::from_pem(&pem).map_err(|error| fault(error.to_string()))?;
    Ok(Tls {
        ca_file: located(&https.ca_file),
        key_file: located(&https.key_file),
        cert_file,
        server_name: facts.dns_names.into_iter().next().unwrap_or_default(),
        ..Tls::default()
    })
}

/// Copies the leader's assignment for as long as another leads, until the shutdown.
pub(crate) async fn follow(shared: Arc<Shared>, mut standing: watch::Receiver<Standing>, shutdown: Shutdown) {
    loop {
        let leader = match &*standing.borrow_and_update() {
            Standing::Follows(Some(leader)) => Some(leader.clone()),
            _ => None,
        };
        let copied = async {
            match leader {
                Some(leader) => copies(&shared, &leader).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = copied => {}
            changed = standing.changed() => if changed.is_err() { return },
            () = shutdown.triggered() => return,
        }
    }
}

async fn copies(shared: &Shared, leader: &Peer) {
    let (mut since, mut said) = (String::new(), None);
    loop {
        let Some(peers) = &shared.peers else { return };
        match peers.copy(leader, &since).await {
            Ok((copy, next)) => {
                if said.take().is_some() {
                    tracing::info!(leader = leader.identity, "the leader can be followed again");
                }
                since = next;
                shared.say(Said::Copied(leader.identity.clone(), copy)).await;
                tokio::time::sleep(TOGETHER).await;
            }
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    tracing::warn!(
                        leader = leader.identity,
                        error,
                        "the leader cannot be followed; what it said last holds"
                    );
                    said = Some(error);
                }
                since.clear();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
