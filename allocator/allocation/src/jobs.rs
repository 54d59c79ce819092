//! Jobs, each with a number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use karez_scrape_config::{Labels, ScrapeConfig, defaults};

/// A job that is known.
#[derive(Debug)]
pub(crate) struct KnownJob {
    pub(crate) config: Arc<ScrapeConfig>,
    /// Labels that its targets have unless they say otherwise.
    pub(crate) defaults: Labels,
    /// Discovery that finds targets for it.
    pub(crate) providers: Vec<usize>,
    /// Targets it has.
    pub(crate) targets: u64,
    /// Targets whose weight is known, and the sum of those.
    pub(crate) known: (u64, u64),
}

impl KnownJob {
    /// What a target weighs of which nobody has told: as much as its siblings do.
    pub(crate) fn usual_weight(&self) -> u32 {
        let (count, sum) = self.known;
        u32::try_from(sum.checked_div(count).unwrap_or(1).max(1)).unwrap_or(u32::MAX)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    jobs: Vec<Option<KnownJob>>,
    by_name: BTreeMap<String, u32>,
    of_provider: HashMap<usize, Vec<u32>>,
}

impl Jobs {
    pub(crate) fn get(&self, job: u32) -> Option<&KnownJob> {
        self.jobs.get(job as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, job: u32) -> Option<&mut KnownJob> {
        self.jobs.get_mut(job as usize)?.as_mut()
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Their numbers, by name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_name.iter().map(|(name, job)| (name.as_str(), *job))
    }

    pub(crate) fn of_provider(&self, provider: usize) -> Vec<u32> {
        self.of_provider.get(&provider).cloned().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, name: &str, config: Arc<ScrapeConfig>, providers: Vec<usize>) -> u32 {
        let job = match self.by_name.get(name) {
            Some(job) => *job,
            None => {
                let free = self.jobs.iter().position(Option::is_none);
                let job = free.unwrap_or_else(|| {
                    self.jobs.push(None);
                    self.jobs.len() - 1
                });
                // A configuration is bounded far below this by its size.
                let job = u32::try_from(job).unwrap_or(u32::MAX);
                self.by_name.insert(name.to_owned(), job);
                job
            }
        };
        self.forget_providers(job);
        for provider in &providers {
            self.of_provider.entry(*provider).or_default().push(job);
        }
        let (targets, known) = self.get(job).map_or((0, (0, 0)), |old| (old.targets, old.known));
        if let Some(place) = self.jobs.get_mut(job as usize) {
            *place = Some(KnownJob {
                defaults: defaults(&config),
                config,
                providers,
                targets,
                known,
            });
        }
        job
    }

    pub(crate) fn remove(&mut self, job: u32) {
        self.forget_providers(job);
        if let Some(old) = self.jobs.get_mut(job as usize).and_then(Option::take) {
            self.by_name.remove(&old.config.job_name);
        }
    }

    fn forget_providers(&mut self, job: u32) {
        self.of_provider.retain(|_, jobs| {
            jobs.retain(|other| *other != job);
            !jobs.is_empty()
        });
    }
}
