//! `karez allocator explain`: asks a running allocator and shows what it says.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use karez_allocation::{Explanation, Where};
use karez_net::Net;
use karez_scrape::client::{Client, ClientError};
use karez_scrape::config::HttpConfig;

/// The largest answer.
const MAX_BODY: u64 = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The allocator cannot be asked.
    #[error("the allocator at {address} cannot be asked: {source}")]
    Ask {
        /// Where.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// It answers something else.
    #[error("{0} answers {1}: is it an allocator of Karez?")]
    Status(String, StatusCode),
    /// Its answer cannot be read.
    #[error("{0} answers what cannot be read: {1}")]
    Answer(String, serde_json::Error),
}

/// Asks the allocator at an address what became of a target.
///
/// # Errors
/// When it cannot be asked or answers something else.
pub async fn explain(net: &Net, address: &str, target: &str) -> Result<Vec<Explanation>, ExplainError> {
    let address = match address.contains("://") {
        true => address.trim_end_matches('/').to_owned(),
        false => format!("http://{}", address.trim_end_matches('/')),
    };
    let asked: String = url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
    let failed = |source| ExplainError::Ask {
        address: address.clone(),
        source,
    };
    let client = Client::new(&HttpConfig::default(), net).map_err(failed)?;
    let url = format!("{address}/explain?target={asked}");
    let answer = client
        .get(&url, &HeaderMap::new(), MAX_BODY, TIMEOUT)
        .await
        .map_err(failed)?;
    if answer.status != StatusCode::OK {
        return Err(ExplainError::Status(address, answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| ExplainError::Answer(address, error))
}

/// What people read.
pub fn render(explained: &[Explanation]) -> String {
    let mut out = String::new();
    if explained.is_empty() {
        return "no such target was discovered: look at /scrape_configs for the job, and at the log for its discovery\n"
            .to_owned();
    }
    for explanation in explained {
        let _ = writeln!(out, "job {}", explanation.job);
        let _ = writeln!(out, "  discovered {}", explanation.discovered);
        for step in &explanation.steps {
            let _ = writeln!(out, "  rule {}: {} ⇒ {}", step.rule, step.text, step.effect);
        }
        outcome(&explanation.outcome, &mut out);
    }
    out
}

fn outcome(outcome: &Where, out: &mut String) {
    match outcome {
        Where::Dropped { rule } => {
            let _ = writeln!(out, "  dropped by rule {rule}");
        }
        Where::Wrong { reason } => {
            let _ = writeln!(out, "  cannot be scraped: {reason}");
        }
        Where::Kept {
            identity,
            labels,
            found,
            samples,
            owner,
            still_with: _,
            reason,
        } => {
            let _ = writeln!(out, "  kept as {labels}");
            let times = if *found > 1 {
                format!(", found {found} times")
            } else {
                String::new()
            };
            let samples = samples.map_or(String::new(), |samples| format!(", {samples} samples"));
            let _ = writeln!(out, "  identity {identity}{times}{samples}");
            let _ = match owner {
                Some(owner) => writeln!(out, "  scraped by {owner}: {reason}"),
                None => writeln!(out, "  scraped by nobody: {reason}"),
            };
        }
    }
}
