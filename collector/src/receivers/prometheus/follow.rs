//! An allocator of Karez tells what changes for a collector as soon as it does, and is told what the collector has: so
//! a target that changes hands is let go of when its new owner scrapes it, not before.
//!
//! ```text
//! /collectors/ID/changes?since=… ─▶ jobs whose lists changed ─▶ their lists ─▶ Targets      the next question says: I have it
//! samples that scrapes gave ─▶ POST /collectors/ID/samples
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use karez_scrape::client::Client;
use karez_scrape::config::discovery::GroupDocument;
use karez_scrape::config::labels::ADDRESS;
use karez_scrape::config::{Group, Labels};
use serde::Deserialize;

use super::allocator::{AllocatorError, MAX_BODY};

/// The largest list of a job.
const MAX_LIST: u64 = 256 << 20;
/// For how long an allocator may hold back an answer.
const WAIT: Duration = Duration::from_secs(30);

/// What changed.
#[derive(Debug, Deserialize)]
pub(super) struct Changes {
    /// To be said with the next question.
    pub(super) since: String,
    /// The tag of the jobs' configurations.
    pub(super) configs: String,
    /// Jobs whose lists changed.
    pub(super) jobs: Vec<String>,
}

/// Samples that the last scrapes gave, by the identity of their targets; only those that are other than told.
#[derive(Debug, Default)]
pub(super) struct Samples {
    told: HashMap<u64, u32>,
    news: HashMap<u64, u32>,
}

/// What all jobs of a receiver write to.
pub(super) type Sampled = Arc<Mutex<Samples>>;

/// Notes what a scrape gave. Less than a tenth more or less is not worth telling.
pub(super) fn note(sampled: &Sampled, identity: u64, samples: u64) {
    let count = u32::try_from(samples).unwrap_or(u32::MAX);
    let mut sampled = sampled.lock().unwrap_or_else(PoisonError::into_inner);
    let near = sampled
        .told
        .get(&identity)
        .is_some_and(|told| told.abs_diff(count) <= told / 10);
    if near {
        sampled.news.remove(&identity);
    } else {
        sampled.news.insert(identity, count);
    }
}

/// An allocator that is followed.
pub(super) struct Followed<'a> {
    pub(super) client: &'a Client,
    /// Where it is, without a slash at the end.
    pub(super) endpoint: &'a str,
    pub(super) collector_id: &'a str,
    pub(super) timeout: Duration,
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

impl Followed<'_> {
    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers
    }

    /// What changed since the last answer, or what there is; `None` if the allocator knows no such question.
    pub(super) async fn changes(&self, last: Option<&Changes>) -> Result<Option<Changes>, AllocatorError> {
        let mut url = format!(
            "{}/collectors/{}/changes",
            self.endpoint,
            escaped(self.collector_id)
        );
        let mut timeout = self.timeout;
        if let Some(last) = last {
            let (since, configs, wait) = (escaped(&last.since), escaped(&last.configs), WAIT.as_secs());
            url = format!("{url}?since={since}&configs={configs}&wait={wait}s");
            timeout += WAIT;
        }
        let answer = self.client.get(&url, &Self::headers(), MAX_BODY, timeout).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(None),
            status => return Err(AllocatorError::Status(status)),
        }
        // Another program at that path answers something else, perhaps with 200.
        Ok(serde_json::from_slice(&answer.body).ok())
    }

    /// A job's list, as one group.
    pub(super) async fn list(&self, job: &str) -> Result<Arc<Group>, AllocatorError> {
        let (job, id) = (escaped(job), escaped(self.collector_id));
        let url = format!("{}/jobs/{job}/targets?collector_id={id}", self.endpoint);
        let answer = self
            .client
            .get(&url, &Self::headers(), MAX_LIST, self.timeout)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(AllocatorError::Status(answer.status));
        }
        let documents: Vec<GroupDocument> =
            serde_json::from_slice(&answer.body).map_err(|error| AllocatorError::Jobs(error.to_string()))?;
        let mut targets = Vec::with_capacity(documents.len());
        for GroupDocument {
            targets: addresses,
            labels,
        } in documents
        {
            for address in &addresses {
                let own = labels.iter().chain([(ADDRESS, address.as_str())]);
                targets.push(Labels::of(own));
            }
        }
        Ok(Arc::new(Group {
            labels: Labels::of([("__meta_url", url.as_str())]),
            targets,
        }))
    }

    /// Tells what scrapes gave. What is not taken is told again when it changes.
    pub(super) async fn tell(&self, sampled: &Sampled) {
        let news = {
            let mut sampled = sampled.lock().unwrap_or_else(PoisonError::into_inner);
            let news = std::mem::take(&mut sampled.news);
            sampled.told.extend(&news);
            news
        };
        if news.is_empty() {
            return;
        }
        let named: HashMap<String, u32> = news
            .into_iter()
            .map(|(identity, count)| (format!("{identity:x}"), count))
            .collect();
        let Ok(body) = serde_json::to_vec(&named) else {
            return;
        };
        let url = format!(
            "{}/collectors/{}/samples",
            self.endpoint,
            escaped(self.collector_id)
        );
        if let Err(error) = self.client.post_json(&url, body, self.timeout).await {
            tracing::debug!(%error, "the allocator does not hear how much is scraped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let sampled = Sampled::default();
        let news = || sampled.lock().expect("no test panics with it").news.clone();
        note(&sampled, 1, 100);
        assert_eq!(news(), HashMap::from([(1, 100)]));
        {
            let mut sampled = sampled.lock().expect("no test panics with it");
            let news = std::mem::take(&mut sampled.news);
            sampled.told.extend(&news);
        }
        note(&sampled, 1, 105);
        assert!(news().is_empty());
        note(&sampled, 1, 150);
        assert_eq!(news(), HashMap::from([(1, 150)]));
    }
}
