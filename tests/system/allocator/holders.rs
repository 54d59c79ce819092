//! Collectors as the tests play them: each follows the allocator and has what it was told last. Who has what is counted
//! whenever anything changes, so that not even the shortest gap is missed.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;

use super::{ask, escaped};
use crate::support::Outcome;

/// A job and an address in it.
pub(super) type Target = (Arc<str>, Arc<str>);

/// Between two questions of a collector that only polls, and after an answer that did not come.
const POLL: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Counts {
    /// What each collector has, by job.
    views: HashMap<String, HashMap<String, HashSet<Target>>>,
    holders: HashMap<Target, u32>,
    /// Targets that are there all the time.
    anchors: HashSet<Target>,
    /// Since when nobody has one of them.
    missing: HashMap<Target, Instant>,
    /// Since when several have one of them.
    doubled: HashMap<Target, Instant>,
    told: Told,
    /// How often each collector has taken all that an allocator told.
    turns: HashMap<String, u64>,
}

/// What was seen of the anchors.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Changes that were looked at.
    pub(super) changes: u64,
    /// How long nobody had one, each time.
    pub(super) gaps: Vec<Duration>,
    /// How long several had one, at most.
    pub(super) longest_overlap: Duration,
    /// How often several had one.
    pub(super) overlaps: u64,
}

/// Who has what.
#[derive(Clone, Default)]
pub(super) struct Holders(Arc<Mutex<Counts>>);

impl Holders {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are watched. All of them must be held.
    pub(super) fn watch(&self, anchors: impl IntoIterator<Item = Target>) {
        let mut counts = self.lock();
        counts.anchors = anchors.into_iter().collect();
    }

    /// What was seen since the last question.
    pub(super) fn told(&self) -> Told {
        let mut counts = self.lock();
        let now = Instant::now();
        let open: Vec<Duration> = counts.missing.values().map(|since| now - *since).collect();
        counts.told.gaps.extend(open);
        std::mem::take(&mut counts.told)
    }

    /// How many of these targets nobody has, and how many targets several have or nobody should.
    pub(super) fn wrong(&self, expected: &HashSet<Target>) -> (usize, usize, usize) {
        let counts = self.lock();
        let missing = expected
            .iter()
            .filter(|target| !counts.holders.contains_key(*target));
        let several = counts.holders.values().filter(|count| **count > 1);
        let strange = counts.holders.keys().filter(|target| !expected.contains(*target));
        (missing.count(), several.count(), strange.count())
    }

    /// How often each collector has taken all that an allocator told.
    pub(super) fn turns(&self) -> HashMap<String, u64> {
        self.lock().turns.clone()
    }

    fn turned(&self, collector: &str) {
        *self.lock().turns.entry(collector.to_owned()).or_default() += 1;
    }

    /// How many targets a collector has.
    pub(super) fn held_by(&self, collector: &str) -> usize {
        let counts = self.lock();
        let view = counts.views.get(collector);
        view.map_or(0, |view| view.values().map(HashSet::len).sum())
    }

    fn put(&self, collector: &str, job: &str, list: HashSet<Target>) {
        let mut counts = self.lock();
        let view = counts.views.entry(collector.to_owned()).or_default();
        let before = view.insert(job.to_owned(), list.clone()).unwrap_or_default();
        counts.exchange(&before, &list);
    }

    fn keep_jobs(&self, collector: &str, jobs: &HashSet<String>) {
        let mut counts = self.lock();
        let view = counts.views.entry(collector.to_owned()).or_default();
        let (kept, gone): (HashMap<_, _>, HashMap<_, _>) = std::mem::take(view)
            .into_iter()
            .partition(|(job, _)| jobs.contains(job));
        *view = kept;
        for before in gone.into_values() {
            counts.exchange(&before, &HashSet::new());
        }
    }

    fn forget(&self, collector: &str) {
        let mut counts = self.lock();
        counts.turns.remove(collector);
        for before in counts.views.remove(collector).unwrap_or_default().into_values() {
            counts.exchange(&before, &HashSet::new());
        }
    }
}

impl Counts {
    fn exchange(&mut self, before: &HashSet<Target>, after: &HashSet<Target>) {
        self.told.changes += 1;
        for target in after.difference(before) {
            *self.holders.entry(target.clone()).or_default() += 1;
            self.look(target);
        }
        for target in before.difference(after) {
            let left = self.holders.get(target).map_or(0, |count| count - 1);
            match left {
                0 => drop(self.holders.remove(target)),
                left => drop(self.holders.insert(target.clone(), left)),
            }
            self.look(target);
        }
    }

    fn look(&mut self, target: &Target) {
        if !self.anchors.contains(target) {
            return;
        }
        let now = Instant::now();
        let count = self.holders.get(target).copied().unwrap_or(0);
        match count {
            0 => drop(self.missing.entry(target.clone()).or_insert(now)),
            _ => {
                if let Some(since) = self.missing.remove(target) {
                    self.told.gaps.push(now - since);
                }
            }
        }
        if count > 1 {
            if !self.doubled.contains_key(target) {
                self.told.overlaps += 1;
                self.doubled.insert(target.clone(), now);
            }
        } else if let Some(since) = self.doubled.remove(target) {
            self.told.longest_overlap = self.told.longest_overlap.max(now - since);
        }
    }
}

/// How a collector learns what it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As ours: it is told of changes at once.
    Told,
    /// As others: it asks for all lists again and again.
    Polling,
}

/// A collector; ended with the value, and what it had is held no longer.
pub(super) struct Collector {
    name: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    holders: Holders,
}

impl Collector {
    pub(super) fn start(at: SocketAddr, name: &str, manner: Manner, holders: &Holders) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            at,
            name: name.to_owned(),
            holders: holders.clone(),
            stop: stop.clone(),
        };
        let thread = thread::spawn(move || match manner {
            Manner::Told => follower.follow(),
            Manner::Polling => follower.poll(),
        });
        Collector {
            name: name.to_owned(),
            stop,
            thread: Some(thread),
            holders: holders.clone(),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // As a process that ends: what it had nobody has from now on. An answer that is still awaited is not taken.
        self.holders.forget(&self.name);
        drop(self.thread.take());
    }
}

struct Follower {
    at: SocketAddr,
    name: String,
    holders: Holders,
    stop: Arc<AtomicBool>,
}

impl Follower {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn jobs(&self) -> Outcome<HashSet<String>> {
        let configs = ask(self.at, "/scrape_configs")?;
        let names = configs.as_object().into_iter().flat_map(|jobs| jobs.keys());
        Ok(names.cloned().collect())
    }

    fn take(&self, job: &str) -> Outcome {
        // One that has ended asks nothing more: another of its name may have begun.
        ensure!(!self.stopped(), "it has ended");
        let path = format!(
            "/jobs/{}/targets?collector_id={}",
            escaped(job),
            escaped(&self.name)
        );
        let answer = ask(self.at, &path)?;
        let name: Arc<str> = job.into();
        let list = answer.as_array().into_iter().flatten();
        let list = list.filter_map(|target| target["targets"][0].as_str());
        let list = list.map(|address| (name.clone(), Arc::from(address))).collect();
        if !self.stopped() {
            self.holders.put(&self.name, job, list);
        }
        Ok(())
    }

    fn take_jobs(&self) -> Outcome<HashSet<String>> {
        ensure!(!self.stopped(), "it has ended");
        let jobs = self.jobs()?;
        if !self.stopped() {
            self.holders.keep_jobs(&self.name, &jobs);
        }
        Ok(jobs)
    }

    /// Until it is stopped. What was told last holds while the allocator cannot be asked.
    fn poll(&self) {
        while !self.stopped() {
            let turn = self
                .take_jobs()
                .and_then(|jobs| jobs.iter().try_for_each(|job| self.take(job)));
            if turn.is_ok() && !self.stopped() {
                self.holders.turned(&self.name);
            }
            thread::sleep(POLL);
        }
    }

    fn follow(&self) {
        let (mut since, mut configs) = (String::new(), String::new());
        while !self.stopped() {
            match self.turn(&since, &configs) {
                Ok(news) => {
                    let text = |key: &str| news[key].as_str().unwrap_or_default().to_owned();
                    (since, configs) = (text("since"), text("configs"));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    fn turn(&self, since: &str, configs: &str) -> Outcome<Value> {
        let path = format!(
            "/collectors/{}/changes?since={since}&configs={configs}&wait=4s",
            escaped(&self.name)
        );
        let news = ask(self.at, &path)?;
        let changed = news["jobs"].as_array().into_iter().flatten();
        let mut wanted: HashSet<String> = changed
            .filter_map(|job| job.as_str().map(str::to_owned))
            .collect();
        if news["configs"].as_str() != Some(configs) {
            wanted = self.take_jobs()?;
        }
        wanted.iter().try_for_each(|job| self.take(job))?;
        if !self.stopped() {
            self.holders.turned(&self.name);
        }
        Ok(news)
    }
}
