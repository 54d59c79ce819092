//! Jobs and targets from a target allocator: its jobs are asked for again and again, each job's targets by HTTP
//! discovery for this collector.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use karez_collector_config::common::ClientTls;
use karez_collector_config::prometheus::TargetAllocator;
use karez_document::{Origin, yaml};
use karez_lifecycle::{Shutdown, volumes};
use karez_net::Net;
use karez_scrape::client::{Client, ClientError};
use karez_scrape::config::discovery::HttpDiscovery;
use karez_scrape::config::document::read_one;
use karez_scrape::config::http::{Header, Tls};
use karez_scrape::config::values::Secret;
use karez_scrape::config::{DiscoveryConfig, Group, HttpConfig, Options, ScrapeConfig};
use karez_scrape::discovery::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::follow::{Changes, Followed, Sampled};
use super::job::Job;
use super::targets::Targets;
use crate::component::Consumer;

/// The largest list of jobs.
pub(super) const MAX_BODY: u64 = 16 << 20;
/// Targets are asked for at least so often.
const REFRESH: Duration = Duration::from_secs(30);

/// Why the jobs cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum AllocatorError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the target allocator answers {0}")]
    Status(StatusCode),
    #[error("the target allocator's jobs cannot be read: {0}")]
    Jobs(String),
}

/// What jobs of an allocator are run with.
pub(super) struct Allocated {
    pub(super) config: TargetAllocator,
    pub(super) collector_id: String,
    pub(super) consumer: Consumer,
    pub(super) cx: Context,
    pub(super) seed: u64,
    pub(super) extra: bool,
    pub(super) stop: Shutdown,
}

/// A job that runs, and what ends it.
struct Running {
    config: ScrapeConfig,
    gone: Shutdown,
    /// Where its lists go, if the allocator is followed.
    lists: Option<mpsc::Sender<Arc<Group>>>,
}

/// Lists of a job that it has not taken yet.
const LISTS: usize = 1;

/// Where a file is, also where volumes are folders of the host.
fn located(file: &str) -> String {
    match file {
        "" => String::new(),
        file => volumes::locate(std::path::Path::new(file)).display().to_string(),
    }
}

/// The files by which a collector proves who it is, as they were read last: certificates are renewed.
struct Files {
    config: HttpConfig,
    every: Duration,
    known: Vec<Option<Vec<u8>>>,
    looked: Instant,
}

impl Files {
    fn of(config: &TargetAllocator) -> Self {
        let every = config.client.tls.reload_interval;
        let http = http(config);
        Files {
            known: Self::read(&http.tls),
            config: http,
            // Without an interval they are looked at when the allocator does not take the collector any more.
            every: if every.is_zero() { Duration::MAX } else { every },
            looked: Instant::now(),
        }
    }

    fn read(tls: &Tls) -> Vec<Option<Vec<u8>>> {
        let files = [&tls.ca_file, &tls.cert_file, &tls.key_file].into_iter();
        let named = files.filter(|file| !file.is_empty());
        named.map(|file| std::fs::read(file).ok()).collect()
    }

    /// A client with what the files hold now, if that is other than before. After a failure one looks at once.
    fn renewed(&mut self, failed: bool, net: &Net) -> Option<Client> {
        if self.known.is_empty() || (!failed && self.looked.elapsed() < self.every) {
            return None;
        }
        self.looked = Instant::now();
        let now = Self::read(&self.config.tls);
        if now == self.known {
            return None;
        }
        match Client::new(&self.config, net) {
            Ok(client) => {
                self.known = now;
                Some(client)
            }
            Err(error) => {
                tracing::warn!(%error, "the renewed certificate for the target allocator cannot be used yet");
                None
            }
        }
    }
}

/// How the allocator is spoken to.
pub(super) fn http(config: &TargetAllocator) -> HttpConfig {
    let tls: &ClientTls = &config.client.tls;
    let version = |text: &str| match text {
        "1.2" => "TLS12".to_owned(),
        "1.3" => "TLS13".to_owned(),
        _ => String::new(),
    };
    let secret = |inline: &karez_collector_config::values::Secret| Secret::new(inline.expose());
    let headers = config.client.headers.iter().map(|(name, value)| {
        let header = Header {
            secrets: vec![secret(value)],
            ..Header::default()
        };
        (name.clone(), header)
    });
    HttpConfig {
        tls: Tls {
            ca: secret(&tls.ca_pem),
            ca_file: located(&tls.ca_file),
            cert: secret(&tls.cert_pem),
            cert_file: located(&tls.cert_file),
            key: secret(&tls.key_pem),
            key_file: located(&tls.key_file),
            server_name: tls.server_name_override.clone(),
            insecure_skip_verify: tls.insecure_skip_verify,
            min_version: version(&tls.min_version),
            max_version: version(&tls.max_version),
        },
        follow_redirects: false,
        headers: headers.collect(),
        ..HttpConfig::default()
    }
}

impl Allocated {
    /// Follows the allocator until the stop. What it said last holds while it cannot be asked.
    pub(super) async fn run(self, mut client: Client) {
        let mut files = Files::of(&self.config);
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut pause = Duration::from_secs(1);
        let mut said: Option<String> = None;
        let (mut last, sampled) = (None, Sampled::default());
        loop {
            if let Some(renewed) = files.renewed(said.is_some(), &self.cx.net) {
                tracing::info!("the certificate for the target allocator was renewed");
                client = renewed;
                // Discovery of jobs that are not followed holds the old one.
                for job in running.values().filter(|job| job.lists.is_none()) {
                    job.gone.trigger();
                }
                running.retain(|_, job| job.lists.is_some());
            }
            let turn = async {
                match self
                    .follow(&client, &mut last, &sampled, &mut running, &mut tasks)
                    .await
                {
                    Ok(true) => return Ok(None),
                    Ok(false) => {}
                    Err(error) => return Err(error),
                }
                self.jobs(&client).await.map(Some)
            };
            let turn = tokio::select! {
                turn = turn => turn,
                () = self.stop.triggered() => break,
            };
            let wait = match turn {
                Ok(jobs) => {
                    if said.take().is_some() {
                        tracing::info!(
                            endpoint = self.config.client.endpoint,
                            "the target allocator answers again"
                        );
                    }
                    pause = Duration::from_secs(1);
                    match jobs {
                        // An allocator that is followed holds its answer back by itself.
                        None => Duration::ZERO,
                        Some(jobs) => {
                            self.apply(jobs, None, &mut running, &mut tasks);
                            self.config.interval
                        }
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if said.as_deref() != Some(error.as_str()) {
                        tracing::warn!(
                            endpoint = self.config.client.endpoint,
                            error,
                            "no jobs from the target allocator; those it gave last are kept"
                        );
                        said = Some(error);
                    }
                    pause = (pause * 2).min(self.config.interval.max(Duration::from_secs(1)));
                    pause / 2
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.triggered() => break,
            }
            while let Some(ended) = tasks.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a job of the target allocator broke");
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Waits for changes and takes them; whether the allocator can be followed.
    async fn follow(
        &self,
        client: &Client,
        last: &mut Option<Changes>,
        sampled: &Sampled,
        running: &mut HashMap<String, Running>,
        tasks: &mut JoinSet<()>,
    ) -> Result<bool, AllocatorError> {
        let followed = Followed {
            client,
            endpoint: self.config.client.endpoint.trim_end_matches('/'),
            collector_id: &self.collector_id,
            timeout: self.config.client.timeout,
        };
        followed.tell(sampled).await;
        let Some(changes) = followed.changes(last.as_ref()).await? else {
            *last = None;
            return Ok(false);
        };
        let mut wanted = changes.jobs.clone();
        if last.as_ref().is_none_or(|last| last.configs != changes.configs) {
            let jobs = self.jobs(client).await?;
            self.apply(jobs, Some(sampled), running, tasks);
            wanted = running.keys().cloned().collect();
        }
        for job in wanted {
            let Some(lists) = running.get(&job).and_then(|running| running.lists.clone()) else {
                continue;
            };
            let list = followed.list(&job).await?;
            // A job that ends at this moment takes none; there is room for one, which is taken in a moment.
            let _ = lists.send(list).await;
        }
        // Only now everything that was told is here.
        *last = Some(changes);
        Ok(true)
    }

    async fn jobs(&self, client: &Client) -> Result<HashMap<String, ScrapeConfig>, AllocatorError> {
        let endpoint = self.config.client.endpoint.trim_end_matches('/');
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let url = format!("{endpoint}/scrape_configs");
        let answer = client
            .get(&url, &headers, MAX_BODY, self.config.client.timeout)
            .await?;
        if answer.status != StatusCode::OK {
            return Err(AllocatorError::Status(answer.status));
        }
        let text = String::from_utf8(answer.body).map_err(|error| AllocatorError::Jobs(error.to_string()))?;
        let shard = std::env::var("SHARD").unwrap_or_else(|_| "0".to_owned());
        self.read(&text.replace("$(SHARD)", &shard), &url)
    }

    fn read(&self, text: &str, url: &str) -> Result<HashMap<String, ScrapeConfig>, AllocatorError> {
        let documents = yaml::parse(text, &Origin::file(url));
        let documents = documents.map_err(|diagnosis| AllocatorError::Jobs(diagnosis.to_string()))?;
        let mut jobs = HashMap::new();
        let options = Options {
            without_discovery: true,
        };
        for entry in documents.iter().flat_map(|node| node.entries()) {
            let mut diagnoses = Vec::new();
            let job = read_one(&entry.value, &entry.key, options, &mut diagnoses);
            for diagnosis in &diagnoses {
                tracing::warn!(job = entry.key, %diagnosis, "a job of the target allocator is not as it should be");
            }
            let wrong = karez_document::has_errors(&diagnoses);
            if let Some(mut job) = job.filter(|_| !wrong) {
                job.discovery.clear();
                jobs.insert(job.job_name.clone(), job);
            }
        }
        Ok(jobs)
    }

    fn discovery(&self, job: &str) -> HttpDiscovery {
        let escape =
            |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
        let endpoint = self.config.client.endpoint.trim_end_matches('/');
        HttpDiscovery {
            url: format!(
                "{endpoint}/jobs/{}/targets?collector_id={}",
                escape(job),
                escape(&self.collector_id)
            ),
            refresh: self
                .config
                .refresh
                .unwrap_or_else(|| self.config.interval.min(REFRESH)),
            http: http(&self.config),
        }
    }

    /// Ends jobs that are gone or other than before, starts those that are new.
    fn apply(
        &self,
        jobs: HashMap<String, ScrapeConfig>,
        followed: Option<&Sampled>,
        running: &mut HashMap<String, Running>,
        tasks: &mut JoinSet<()>,
    ) {
        running.retain(|name, running| {
            let same = jobs.get(name).is_some_and(|config| *config == running.config)
                && running.lists.is_some() == followed.is_some();
            if !same {
                running.gone.trigger();
            }
            same
        });
        for (name, config) in jobs {
            if running.contains_key(&name) {
                continue;
            }
            let mut found = config.clone();
            if followed.is_none() {
                found.discovery = vec![DiscoveryConfig::Http(self.discovery(&name))];
            }
            let job = match Job::new(found, &self.cx.net, self.extra) {
                Ok(mut job) => {
                    job.sampled = followed.cloned();
                    Arc::new(job)
                }
                Err(error) => {
                    tracing::warn!(job = name, %error, "the job cannot be scraped");
                    continue;
                }
            };
            let gone = Shutdown::default();
            let (sender, receiver) = mpsc::channel(LISTS);
            let (sender, receiver) = (followed.map(|_| sender), followed.map(|_| receiver));
            let targets = Targets {
                jobs: vec![job],
                consumer: self.consumer.clone(),
                seed: self.seed,
                stop: self.stop.clone(),
                // A target that leaves us has most likely gone to another collector, which goes on with its series.
                told: false,
                lists: receiver,
            };
            tasks.spawn(targets.run(self.cx.clone(), gone.clone()));
            let lists = sender;
            running.insert(name, Running { config, gone, lists });
        }
    }
}
