//! One GET of a small document, for what is read at start or now and then (an OpenID provider's keys).

use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use karez_net::Net;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use url::Url;

use super::Dial;
use super::grpc::chain;

/// The largest document that is read.
const MAX_DOCUMENT: usize = 1 << 20;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a document cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The URL is of no use.
    #[error("{0} is no http or https URL with a host")]
    Url(Url),
    /// No connection, or it broke.
    #[error("{url} cannot be read: {reason}")]
    Connection {
        /// What was asked for.
        url: Url,
        /// Why not.
        reason: String,
    },
    /// Another answer than 200.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked for.
        url: Url,
        /// The answer.
        status: StatusCode,
    },
    /// No answer in time.
    #[error("{0} does not answer within {LIMIT:?}")]
    Timeout(Url),
}

/// Reads a document; `tls` is used for `https` URLs.
pub(crate) async fn fetch(net: &Net, url: &Url, tls: &Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    let no_url = || FetchError::Url(url.clone());
    let host = url.host_str().ok_or_else(no_url)?.trim_matches(['[', ']']);
    let port = url.port_or_known_default().ok_or_else(no_url)?;
    let tls = match url.scheme() {
        "http" => None,
        "https" => {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| no_url())?;
            Some((tls.clone(), name))
        }
        _ => return Err(no_url()),
    };
    let dial = Dial {
        net: net.clone(),
        host: host.to_owned(),
        port,
        tls,
        proxy: None,
        reload: None,
    };
    tokio::time::timeout(LIMIT, exchange(dial, url))
        .await
        .map_err(|_| FetchError::Timeout(url.clone()))?
}

async fn exchange(dial: Dial, url: &Url) -> Result<Bytes, FetchError> {
    let failed = |reason: String| FetchError::Connection {
        url: url.clone(),
        reason,
    };
    let client: legacy::Client<Dial, Empty<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(dial);
    let request = Request::get(url.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("karez/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| failed(error.to_string()))?;
    let answer = client
        .request(request)
        .await
        .map_err(|error| failed(chain(&error)))?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status {
            url: url.clone(),
            status: answer.status(),
        });
    }
    let body = Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await;
    Ok(body.map_err(|error| failed(error.to_string()))?.to_bytes())
}
