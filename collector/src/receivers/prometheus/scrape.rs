//! One target, scraped again and again.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{StatusCode, header};
use karez_exposition::{protobuf, text};
use karez_lifecycle::Shutdown;
use karez_scrape::client::{Answer, ClientError};
use karez_scrape::config::Target;
use tokio::time::Instant;

use super::convert::{Conversion, Limit, Report, Scrape};
use super::follow;
use super::job::{Exposed, Job};
use crate::batch::Batch;
use crate::component::Consumer;

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the target answers {0}")]
    Status(StatusCode),
    #[error("the body is no text in UTF-8")]
    Utf8,
    #[error("{0}")]
    Format(karez_exposition::Error<Limit>),
}

impl From<karez_exposition::Error<Limit>> for ScrapeError {
    fn from(error: karez_exposition::Error<Limit>) -> Self {
        ScrapeError::Format(error)
    }
}

/// How the loop of a target ends.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// The target is gone.
    pub(super) gone: Shutdown,
    /// The receiver stops.
    pub(super) stop: Shutdown,
    /// Whether the end of its series is told when the target is gone: not so when another collector may have it.
    pub(super) told: bool,
}

/// Scrapes a target until it is gone or the receiver stops.
pub(super) async fn run(job: Arc<Job>, target: Target, seed: u64, consumer: Consumer, ending: Ending) {
    let mut this = Loop {
        url: target.url(&job.config),
        interval: target.interval(),
        timeout: target.timeout(),
        conversion: Conversion::new(job.config.clone(), target),
        job,
        consumer,
        said: None,
    };
    let now = since_epoch();
    let first = this.conversion.target().first_scrape(now, seed);
    let mut next = Instant::now() + first.saturating_sub(now);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = ending.gone.triggered() => break,
            () = ending.stop.triggered() => return,
        }
        next += this.interval;
        if next < Instant::now() {
            // The machine slept, or was too busy: what is missed is not made up for.
            next = Instant::now() + this.interval;
        }
        tokio::select! {
            () = this.once(next) => {}
            () = ending.stop.triggered() => return,
        }
    }
    if ending.told {
        let batch = this.conversion.scrape(milliseconds(since_epoch())).end();
        this.offer(batch, Instant::now() + Duration::from_secs(1)).await;
    }
}

struct Loop {
    job: Arc<Job>,
    url: String,
    interval: Duration,
    timeout: Duration,
    conversion: Conversion,
    consumer: Consumer,
    /// What went wrong last, so that it is said once.
    said: Option<String>,
}

impl Loop {
    /// One scrape; what the pipeline does not take is offered until the next is due.
    async fn once(&mut self, next: Instant) {
        let (now, started) = (milliseconds(since_epoch()), Instant::now());
        let limit = self.job.config.limits.body_size;
        let asked = self
            .job
            .client
            .get(&self.url, &self.job.headers, limit, self.timeout)
            .await;
        let answer = asked
            .map_err(ScrapeError::from)
            .and_then(|answer| match answer.status {
                StatusCode::OK => Ok(answer),
                status => Err(ScrapeError::Status(status)),
            });
        let mut scrape = self.conversion.scrape(now);
        let size = answer.as_ref().map_or(0, |answer| answer.body.len());
        let converted = answer.and_then(|answer| convert(&self.job, &answer, &mut scrape));
        if converted.is_err() {
            scrape.fail();
        }
        let report = Report {
            up: converted.is_ok(),
            duration: started.elapsed(),
            body: size,
            extra: self.job.extra,
        };
        let samples = scrape.samples();
        let batch = scrape.finish(&report);
        if let Some(sampled) = self.job.sampled.as_ref().filter(|_| converted.is_ok()) {
            follow::note(sampled, self.conversion.target().identity, samples);
        }
        self.say(converted);
        self.offer(batch, next).await;
    }

    fn say(&mut self, converted: Result<(), ScrapeError>) {
        match converted {
            Ok(()) if self.said.take().is_some() => {
                tracing::info!(
                    job = self.job.config.job_name,
                    url = self.url,
                    "the scrape works again"
                );
            }
            Ok(()) => {}
            Err(error) => {
                let error = error.to_string();
                if self.said.as_deref() != Some(error.as_str()) {
                    tracing::warn!(
                        job = self.job.config.job_name,
                        url = self.url,
                        error,
                        "the scrape failed"
                    );
                    self.said = Some(error);
                }
            }
        }
    }

    async fn offer(&self, batch: Batch, until: Instant) {
        let mut pause = Duration::from_millis(50);
        let items = batch.items;
        loop {
            let refusal = match self.consumer.send(batch.clone()).await {
                Ok(()) => return,
                Err(refusal) => refusal,
            };
            if !refusal.retryable || Instant::now() + pause >= until {
                tracing::warn!(url = self.url, items, %refusal, "lost a scrape: the pipeline refused it");
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

fn convert(job: &Job, answer: &Answer, scrape: &mut Scrape<'_>) -> Result<(), ScrapeError> {
    let content_type = answer.header(header::CONTENT_TYPE).unwrap_or_default();
    match job.exposed(content_type) {
        Exposed::Text(format) => {
            let body = std::str::from_utf8(&answer.body).map_err(|_| ScrapeError::Utf8)?;
            if format == text::Format::OpenMetrics {
                scrape.openmetrics();
            }
            Ok(text::parse(body, format, scrape)?)
        }
        Exposed::Protobuf => {
            let options = protobuf::Options {
                native: job.config.native_histograms,
                classic_too: job.config.classic_histograms,
            };
            Ok(protobuf::parse(&answer.body, options, scrape)?)
        }
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
