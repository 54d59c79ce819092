//! Which targets are scraped: follows discovery, starts and ends a task for each target.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use karez_lifecycle::Shutdown;
use karez_scrape::config::{Assembler, Fate, Group, ScrapeConfig, Target};
use karez_scrape::discovery::{Change, Context, Discovery};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::job::Job;
use super::scrape::{self, Ending};
use crate::component::Consumer;

/// Jobs and the targets that are found for them.
pub(super) struct Targets {
    pub(super) jobs: Vec<Arc<Job>>,
    pub(super) consumer: Consumer,
    /// Spreads targets: another collector scrapes at other instants.
    pub(super) seed: u64,
    pub(super) stop: Shutdown,
    /// Whether the end of a target's series is told.
    pub(super) told: bool,
    /// Lists of the only job, each whole, from an allocator that is followed.
    pub(super) lists: Option<mpsc::Receiver<Arc<Group>>>,
}

/// Who finds what an allocator gives; a number that no discovery has.
const ALLOCATOR: usize = usize::MAX;

/// Where a target was found: job, provider, source.
type Found = (usize, usize, Arc<str>);

#[derive(Default)]
struct Known {
    /// Identities of each place where targets are found.
    found: HashMap<Found, HashSet<u64>>,
    running: HashMap<u64, Running>,
    /// How many targets of a job are scraped.
    of_job: HashMap<usize, u64>,
}

/// A target that is scraped.
struct Running {
    job: usize,
    /// How often it is found.
    count: usize,
    /// Ends its task.
    end: Shutdown,
}

impl Targets {
    /// Follows discovery until the stop or until `gone`.
    pub(super) async fn run(mut self, cx: Context, gone: Shutdown) {
        let mut lists = self.lists.take();
        let configs: Vec<ScrapeConfig> = self.jobs.iter().map(|job| (*job.config).clone()).collect();
        let discovery = Discovery::start(&configs, &cx);
        let mut known = Known::default();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                changes = discovery.changes() => {
                    for change in changes {
                        self.take(&discovery, &change, &mut known, &mut tasks);
                    }
                }
                Some(list) = async { lists.as_mut()?.recv().await } => {
                    self.place(0, ALLOCATOR, &"".into(), Some(&list), &mut known, &mut tasks);
                }
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a target broke");
                    }
                }
                () = gone.triggered() => break,
                () = self.stop.triggered() => break,
            }
        }
        drop(discovery);
        known.running.values().for_each(|running| running.end.trigger());
        while tasks.join_next().await.is_some() {}
    }

    fn take(&self, discovery: &Discovery, change: &Change, known: &mut Known, tasks: &mut JoinSet<()>) {
        for job in discovery.jobs_of(change.provider) {
            let Change {
                provider,
                source,
                group,
            } = change;
            self.place(*job, *provider, source, group.as_ref(), known, tasks);
        }
    }

    fn place(
        &self,
        job: usize,
        provider: usize,
        source: &Arc<str>,
        group: Option<&Arc<Group>>,
        known: &mut Known,
        tasks: &mut JoinSet<()>,
    ) {
        let found = (job, provider, source.clone());
        let targets = group.map_or_else(Vec::new, |group| assemble(&self.jobs[job], group));
        let now: HashSet<u64> = targets.iter().map(|target| target.identity).collect();
        let before = known.found.remove(&found).unwrap_or_default();
        for target in targets {
            if before.contains(&target.identity) {
                continue;
            }
            self.start(job, target, known, tasks);
        }
        for identity in before.difference(&now) {
            known.release(*identity);
        }
        if !now.is_empty() {
            known.found.insert(found, now);
        }
    }

    fn start(&self, number: usize, target: Target, known: &mut Known, tasks: &mut JoinSet<()>) {
        if let Some(running) = known.running.get_mut(&target.identity) {
            running.count += 1;
            return;
        }
        let job = &self.jobs[number];
        let limit = job.config.limits.targets;
        let of_job = known.of_job.entry(number).or_default();
        if limit > 0 && *of_job >= limit {
            let url = target.url(&job.config);
            tracing::warn!(
                job = job.config.job_name,
                url,
                limit,
                "not scraped: the job has more targets than target_limit"
            );
            return;
        }
        *of_job += 1;
        let end = Shutdown::default();
        let ending = Ending {
            gone: end.clone(),
            stop: self.stop.clone(),
            told: self.told,
        };
        let running = Running {
            job: number,
            count: 1,
            end,
        };
        known.running.insert(target.identity, running);
        tasks.spawn(scrape::run(
            job.clone(),
            target,
            self.seed,
            self.consumer.clone(),
            ending,
        ));
    }
}

impl Known {
    fn release(&mut self, identity: u64) {
        let Some(running) = self.running.get_mut(&identity) else {
            return;
        };
        running.count -= 1;
        if running.count == 0 {
            running.end.trigger();
            if let Some(of_job) = self.of_job.get_mut(&running.job) {
                *of_job -= 1;
            }
            self.running.remove(&identity);
        }
    }
}

/// The targets of a group that are to be scraped; one is as good as its twin.
fn assemble(job: &Job, group: &Arc<Group>) -> Vec<Target> {
    let mut assembler = Assembler::new(&job.config);
    let mut targets: Vec<Target> = Vec::new();
    let mut seen = HashSet::new();
    for target in &group.targets {
        match assembler.assemble(group, target) {
            Fate::Kept(target) => {
                if seen.insert(target.identity) {
                    targets.push(target);
                }
            }
            Fate::Dropped => {}
            Fate::Wrong(error) => {
                tracing::warn!(job = job.config.job_name, %target, %error, "a target cannot be scraped");
            }
        }
    }
    targets
}
