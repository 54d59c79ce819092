//! Discovery: a task a source finds groups of targets; who asks gets what changed since it asked last.
//!
//! ```text
//! DiscoveryConfig ─▶ provider (one for all jobs that say the same) ─▶ Sink ─▶ Discovery::changes ─▶ Change
//! ```
//!
//! Changes wait in a map of the newest group of each source, so however slow the reader, memory is bounded by what
//! there is. A source that fails keeps what it gave last.

mod consul;
mod dns;
mod file;
mod http;
mod kubernetes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use karez_net::Net;
use karez_scrape_config::{DiscoveryConfig, Group, ScrapeConfig};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

/// A group that is new, other than before, or gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The provider it comes from: a number of [`Discovery::jobs_of`].
    pub provider: usize,
    /// The group's name there.
    pub source: Arc<str>,
    /// The group; `None` when it is gone.
    pub group: Option<Arc<Group>>,
}

/// What discovery needs from where it runs.
#[derive(Clone)]
pub struct Context {
    /// Names and sockets.
    pub net: Net,
    /// The Kubernetes API of discovery that names none; found as `kubectl` would find it when there is none here.
    pub kubernetes: Option<kube::Client>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("net", &self.net)
            .finish_non_exhaustive()
    }
}

/// Groups that nobody has taken yet, by discovery and source; `None` for one that is gone.
type Waiting = HashMap<(usize, Arc<str>), Option<Arc<Group>>>;

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Providers that have told all there was at their beginning.
    told: Mutex<HashSet<usize>>,
    changed: Notify,
}

/// Running discovery. Dropped, it ends.
pub struct Discovery {
    shared: Arc<Shared>,
    /// By number, which is never given twice.
    providers: BTreeMap<usize, Provider>,
    next: usize,
    tasks: JoinSet<()>,
}

/// A source that is looked at, for one job or several.
struct Provider {
    config: DiscoveryConfig,
    jobs: Vec<usize>,
    /// Ends its task; there is none for what never changes.
    task: Option<AbortHandle>,
}

impl Discovery {
    /// Starts what the jobs say. Must be called in a runtime.
    pub fn start(configs: &[ScrapeConfig], cx: &Context) -> Self {
        let mut this = Discovery {
            shared: Arc::default(),
            providers: BTreeMap::new(),
            next: 0,
            tasks: JoinSet::new(),
        };
        this.update(configs, cx);
        this
    }

    /// These are the jobs now. What was looked at already goes on as it is and does not tell again what it told: who
    /// has a new job for it keeps what it found. What no job asks for any more ends; nobody is told that its groups are
    /// gone.
    pub fn update(&mut self, configs: &[ScrapeConfig], cx: &Context) {
        self.providers
            .values_mut()
            .for_each(|provider| provider.jobs.clear());
        for (job, config) in configs.iter().enumerate() {
            for source in &config.discovery {
                let known = self
                    .providers
                    .values_mut()
                    .find(|provider| provider.config == *source);
                match known {
                    Some(provider) if provider.jobs.last() != Some(&job) => provider.jobs.push(job),
                    Some(_) => {}
                    None => self.begin(source, job, &config.job_name, cx),
                }
            }
        }
        let ended: Vec<usize> = self.idle().collect();
        for number in ended {
            if let Some(task) = self.providers.remove(&number).and_then(|provider| provider.task) {
                task.abort();
            }
            self.shared
                .waiting()
                .retain(|(provider, _), _| *provider != number);
            self.shared.told().remove(&number);
        }
        // What has ended is let go of.
        while self.tasks.try_join_next().is_some() {}
    }

    fn idle(&self) -> impl Iterator<Item = usize> {
        let idle = self
            .providers
            .iter()
            .filter(|(_, provider)| provider.jobs.is_empty());
        idle.map(|(number, _)| *number)
    }

    fn begin(&mut self, source: &DiscoveryConfig, job: usize, name: &str, cx: &Context) {
        let number = self.next;
        self.next += 1;
        let sink = Sink {
            shared: self.shared.clone(),
            provider: number,
            job: name.into(),
        };
        let provider = Provider {
            config: source.clone(),
            jobs: vec![job],
            task: spawn(&mut self.tasks, source, sink, cx),
        };
        self.providers.insert(number, provider);
    }

    /// The jobs (their places in the list of configurations) that a provider finds targets for.
    pub fn jobs_of(&self, provider: usize) -> &[usize] {
        self.providers
            .get(&provider)
            .map_or(&[], |provider| provider.jobs.as_slice())
    }

    /// The providers that find targets for a job, by its place in the list of configurations.
    pub fn providers_of(&self, job: usize) -> Vec<usize> {
        let providers = self
            .providers
            .iter()
            .filter(|(_, provider)| provider.jobs.contains(&job));
        providers.map(|(number, _)| *number).collect()
    }

    /// Whether every source has told all there was when it was first looked at, and all of that was taken. One that
    /// fails from the start has not.
    pub fn is_complete(&self) -> bool {
        let told = self.shared.told();
        let waits =
            |(number, provider): (&usize, &Provider)| provider.task.is_some() && !told.contains(number);
        !self.providers.iter().any(waits) && self.shared.waiting().is_empty()
    }

    /// How many tasks look for targets.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until something has changed and gives all of it. May be cancelled without loss.
    pub async fn changes(&self) -> Vec<Change> {
        loop {
            let found = self.changes_so_far();
            if !found.is_empty() {
                return found;
            }
            self.shared.changed.notified().await;
        }
    }

    /// All that has changed by now, without waiting.
    pub fn changes_so_far(&self) -> Vec<Change> {
        let found = std::mem::take(&mut *self.shared.waiting());
        let change = |((provider, source), group)| Change {
            provider,
            source,
            group,
        };
        found.into_iter().map(change).collect()
    }
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, HashSet<usize>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(tasks: &mut JoinSet<()>, source: &DiscoveryConfig, sink: Sink, cx: &Context) -> Option<AbortHandle> {
    Some(match source.clone() {
        DiscoveryConfig::Static(groups) => {
            for (index, group) in groups.into_iter().enumerate() {
                sink.put(&index.to_string().into(), Some(group.into()));
            }
            return None;
        }
        DiscoveryConfig::File(config) => tasks.spawn(file::run(config, sink)),
        DiscoveryConfig::Http(config) => tasks.spawn(http::run(config, sink, cx.net.clone())),
        DiscoveryConfig::Dns(config) => tasks.spawn(dns::run(config, sink)),
        DiscoveryConfig::Kubernetes(config) => tasks.spawn(kubernetes::run(config, sink, cx.clone())),
        DiscoveryConfig::Consul(config) => tasks.spawn(consul::run(config, sink, cx.net.clone())),
    })
}

/// Where a provider puts what it finds.
#[derive(Clone)]
struct Sink {
    shared: Arc<Shared>,
    provider: usize,
    /// A job that asked, for messages.
    job: Arc<str>,
}

impl Sink {
    /// A group is new or other than before, or gone.
    fn put(&self, source: &Arc<str>, group: Option<Arc<Group>>) {
        self.shared
            .waiting()
            .insert((self.provider, source.clone()), group);
        self.shared.changed.notify_one();
    }

    /// All there is was put.
    fn told(&self) {
        self.shared.told().insert(self.provider);
    }
}

/// What a provider gave last, so that only what differs is given again.
#[derive(Default)]
struct Given(HashMap<Arc<str>, Arc<Group>>);

impl Given {
    /// These are all groups there are now.
    fn replace(&mut self, sink: &Sink, groups: impl IntoIterator<Item = (String, Group)>) {
        let mut before = std::mem::take(&mut self.0);
        for (source, group) in groups {
            let (source, old) = match before.remove_entry(source.as_str()) {
                Some((source, old)) => (source, Some(old)),
                None => (Arc::from(source), None),
            };
            let group = match old {
                Some(old) if *old == group => old,
                _ => {
                    let group = Arc::new(group);
                    sink.put(&source, Some(group.clone()));
                    group
                }
            };
            self.0.insert(source, group);
        }
        for source in before.keys() {
            sink.put(source, None);
        }
    }
}

/// Says once that a source fails, and once that it works again.
#[derive(Default)]
struct Health {
    said: Option<String>,
}

impl Health {
    fn failed(&mut self, sink: &Sink, source: &str, error: &dyn std::fmt::Display) {
        let error = error.to_string();
        if self.said.as_deref() != Some(error.as_str()) {
            tracing::warn!(job = %sink.job, source, %error, "discovery fails; the targets it gave last are kept");
            self.said = Some(error);
        }
    }

    fn works(&mut self, sink: &Sink, source: &str) {
        if self.said.take().is_some() {
            tracing::info!(job = %sink.job, source, "discovery works again");
        }
    }
}

/// A tick each `period`, at least a second, the first at once.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period.max(Duration::from_secs(1)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
