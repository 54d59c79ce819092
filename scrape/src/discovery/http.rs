//! `http_sd_configs`: a list of groups, asked for again and again.

use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use karez_net::Net;
use karez_scrape_config::Group;
use karez_scrape_config::discovery::{GroupDocument, HttpDiscovery};
use karez_scrape_config::values::format_duration;

use super::{Given, Health, Sink, ticks};
use crate::client::{Client, ClientError};

/// The largest answer.
const MAX_BODY: u64 = 256 << 20;
/// For an answer, where the time between two questions is not shorter.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn run(config: HttpDiscovery, sink: Sink, net: Net) {
    let mut health = Health::default();
    let client = match Client::new(&config.http, &net) {
        Ok(client) => client,
        Err(error) => return health.failed(&sink, &config.url, &error),
    };
    let mut given = Given::default();
    let mut asked = Asked::default();
    let mut ticks = ticks(config.refresh);
    loop {
        ticks.tick().await;
        match ask(&client, &config, &mut asked).await {
            Ok(Some(groups)) => {
                health.works(&sink, &config.url);
                let named = groups.into_iter().enumerate();
                given.replace(
                    &sink,
                    named.map(|(index, group)| (format!("{}:{index}", config.url), group)),
                );
                sink.told();
            }
            Ok(None) => health.works(&sink, &config.url),
            Err(error) => health.failed(&sink, &config.url, &error),
        }
    }
}

/// The tag of the last answer, so that an unchanged list is not sent again.
#[derive(Default)]
struct Asked {
    tag: Option<HeaderValue>,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("answers {0}")]
    Status(StatusCode),
    #[error("answers `{0}`, not JSON")]
    Type(String),
    #[error("answers no list of groups: {0}")]
    Json(#[from] serde_json::Error),
}

async fn ask(
    client: &Client,
    config: &HttpDiscovery,
    asked: &mut Asked,
) -> Result<Option<Vec<Group>>, AskError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    if let Ok(seconds) = HeaderValue::from_str(&config.refresh.as_secs().to_string()) {
        headers.insert("x-prometheus-refresh-interval-seconds", seconds);
    }
    if let Some(tag) = &asked.tag {
        headers.insert(header::IF_NONE_MATCH, tag.clone());
    }
    tracing::trace!(
        url = config.url,
        every = format_duration(config.refresh),
        "asking for targets"
    );
    let answer = client.get(&config.url, &headers, MAX_BODY, TIMEOUT).await?;
    if answer.status == StatusCode::NOT_MODIFIED && asked.tag.is_some() {
        return Ok(None);
    }
    if answer.status != StatusCode::OK {
        return Err(AskError::Status(answer.status));
    }
    let media = answer.header(header::CONTENT_TYPE).unwrap_or_default();
    let kind = media.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(AskError::Type(media.to_owned()));
    }
    let groups: Vec<GroupDocument> = serde_json::from_slice(&answer.body)?;
    asked.tag = answer.headers.get(header::ETAG).cloned();
    let more = [("__meta_url", config.url.as_str())];
    Ok(Some(groups.into_iter().map(|group| group.group(&more)).collect()))
}
