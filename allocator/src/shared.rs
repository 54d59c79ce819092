//! What the engine writes and HTTP reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use karez_allocation::{Allocation, Copy, Settings};
use karez_scrape::config::ScrapeConfig;
use karez_scrape::config::write::to_json;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use xxhash_rust::xxh64::xxh64;

use crate::http::body::gzip;
use crate::lease::{Peer, Standing};
use crate::metrics::Metrics;
use crate::peers::Peers;

/// What a collector says.
#[derive(Debug)]
pub(crate) enum Said {
    /// It has what it was told up to a revision.
    Has(String, u64),
    /// It was given its list of a job, as it was at a revision.
    Asked(String, String, u64),
    /// Samples that scrapes gave, by identity.
    Samples(Vec<(u64, u32)>),
    /// What the allocator of that name, which leads, has of who has what.
    Copied(String, Copy),
}

/// More than this that nobody has heard yet waits at its sender, or is said again later.
const WAITING: usize = 1024;

/// Who cannot follow a leader for so long after its start answers without.
const ALONE: Duration = Duration::from_secs(30);

/// Everything that several tasks see.
pub(crate) struct Shared {
    allocation: RwLock<Allocation>,
    served: RwLock<Arc<Served>>,
    /// The revision that is to be seen.
    pub(crate) revision: watch::Sender<u64>,
    /// Tells revisions of this run from those of another.
    pub(crate) epoch: String,
    pub(crate) metrics: Metrics,
    /// How it stands among others.
    pub(crate) standing: watch::Sender<Standing>,
    /// What others are asked with, if there are any.
    pub(crate) peers: Option<Peers>,
    /// The rules that this ServiceAccount lacks, as roles have them.
    lacking: RwLock<String>,
    /// Whether it has what the leader has; without a leader it needs nothing.
    copied: AtomicBool,
    started: Instant,
    /// Whether all there was at the start is known. Before, nobody is given lists that lack most of it.
    pub(crate) warm: watch::Sender<bool>,
    said: mpsc::Sender<Said>,
    heard: std::sync::Mutex<Option<mpsc::Receiver<Said>>>,
}

/// Bodies of `/scrape_configs`, made when the jobs change.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// Whether there was a configuration at all.
    pub(crate) ready: bool,
    /// Over plain HTTP.
    pub(crate) plain: Tagged,
    /// Over mutual TLS.
    pub(crate) secure: Tagged,
    /// Jobs that plain HTTP does not give, because they hold secrets.
    pub(crate) withheld: Vec<String>,
    /// What is wrong with jobs and resources, for people.
    pub(crate) refused: Vec<(String, String)>,
}

/// A body and what it is called.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) text: Bytes,
    pub(crate) packed: Bytes,
    pub(crate) tag: u64,
}

/// Without the body: it may hold secrets.
impl std::fmt::Debug for Tagged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {:016x}", self.text.len(), self.tag)
    }
}

impl Tagged {
    pub(crate) fn new(text: Vec<u8>) -> Self {
        Tagged {
            tag: xxh64(&text, 0),
            packed: gzip(&text).into(),
            text: text.into(),
        }
    }
}

impl Served {
    pub(crate) fn new(jobs: &[ScrapeConfig], secrets_too: bool, refused: Vec<(String, String)>) -> Self {
        let secret: Vec<&ScrapeConfig> = jobs.iter().filter(|job| job.has_secrets()).collect();
        let write = |wanted: &dyn Fn(&ScrapeConfig) -> bool| {
            let mut sorted: Vec<&ScrapeConfig> = jobs.iter().filter(|job| wanted(job)).collect();
            sorted.sort_unstable_by(|a, b| a.job_name.cmp(&b.job_name));
            let entries = sorted.into_iter().map(|job| (job.job_name.clone(), to_json(job)));
            Tagged::new(
                Value::Object(entries.collect::<Map<_, _>>())
                    .to_string()
                    .into_bytes(),
            )
        };
        let secure = write(&|_| true);
        let open = secrets_too || secret.is_empty();
        Served {
            ready: true,
            plain: if open {
                secure.clone()
            } else {
                write(&|job| !job.has_secrets())
            },
            secure,
            withheld: match open {
                true => Vec::new(),
                false => secret.iter().map(|job| job.job_name.clone()).collect(),
            },
            refused,
        }
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings, peers: Option<Peers>) -> Self {
        let (said, heard) = mpsc::channel(WAITING);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let standing = match peers {
            Some(_) => Standing::Unknown,
            None => Standing::Leads,
        };
        Shared {
            allocation: RwLock::new(Allocation::new(settings)),
            served: RwLock::default(),
            revision: watch::Sender::new(1),
            epoch: format!("{:x}", started.as_nanos()),
            metrics: Metrics::default(),
            standing: watch::Sender::new(standing),
            peers,
            lacking: RwLock::default(),
            copied: AtomicBool::new(false),
            started: Instant::now(),
            warm: watch::Sender::new(false),
            said,
            heard: std::sync::Mutex::new(Some(heard)),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Allocation> {
        self.allocation.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only the engine does.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Allocation> {
        self.allocation.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those who wait look again.
    pub(crate) fn publish(&self) {
        let revision = self.read().revision();
        self.revision
            .send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
    }

    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn serve(&self, served: Served) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
        self.revision.send_modify(|_| {});
    }

    /// The one who is to be asked instead of this one.
    pub(crate) fn leader(&self) -> Option<Peer> {
        match &*self.standing.borrow() {
            Standing::Follows(leader) => leader.clone(),
            Standing::Leads | Standing::Acts | Standing::Unknown => None,
        }
    }

    /// Whether it decides.
    pub(crate) fn leads(&self) -> bool {
        self.standing.borrow().leads()
    }

    /// The allocator's own figures, as `/metrics` shows them.
    pub(crate) fn figures(&self) -> String {
        let (served, leads, lacking) = (self.served(), self.leads(), self.lacking());
        self.metrics.text(&self.read(), &served, leads, &lacking)
    }

    /// The rules that this ServiceAccount lacks.
    pub(crate) fn lacking(&self) -> String {
        self.lacking
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_lacking(&self, rules: String) {
        *self.lacking.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// It has what the leader has.
    pub(crate) fn has_copy(&self) {
        self.copied.store(true, Ordering::Relaxed);
    }

    /// Whether its answers are worth asking for: one that has just started has first what the leader has.
    pub(crate) fn is_ready(&self) -> bool {
        // Others may have a leader by now that this one cannot know of.
        if *self.standing.borrow() == Standing::Acts {
            return false;
        }
        let agrees = self.leads() || self.copied.load(Ordering::Relaxed);
        *self.warm.borrow() && self.served().ready && (agrees || self.started.elapsed() > ALONE)
    }

    /// Waits a while until all there was at the start is known; whether it is.
    pub(crate) async fn is_warm(&self, wait: Duration) -> bool {
        let mut warm = self.warm.subscribe();
        let known = tokio::time::timeout(wait, warm.wait_for(|warm| *warm)).await;
        matches!(known, Ok(Ok(_)))
    }

    /// Passes on what a collector says; the engine hears it soon.
    pub(crate) async fn say(&self, said: Said) {
        // Without an engine the program is about to end.
        let _ = self.said.send(said).await;
    }

    /// What collectors say; whoever asks first hears it.
    pub(crate) fn hear(&self) -> Option<mpsc::Receiver<Said>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
