//! The whole: what is known, and what changes it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use karez_scrape_config::labels::ADDRESS;
use karez_scrape_config::{Assembler, Fate, Group, Labels, ScrapeConfig, Target};
use xxhash_rust::xxh64::xxh64;

use crate::entries::{Change, Entries, Facts, Identity, Origin};
use crate::groups::{self, DROPPED, Groups, KnownGroup, NEW, Placement, WRONG, content, is_target};
use crate::jobs::Jobs;
use crate::lists::Slot;
use crate::moves::Settling;
use crate::seats::{NOBODY, Seat, Seats};
use crate::settings::{Settings, StrategyKind};
use crate::share::{Guide, Journal};
use crate::strategy::{PARTITIONS, Strategy};

/// Labels that name a target's node, in the order in which they are asked.
const NODE_LABELS: [&str; 3] = [
    "__meta_kubernetes_pod_node_name",
    "__meta_kubernetes_node_name",
    "__meta_kubernetes_endpoint_node_name",
];

/// A job with the numbers of the discovery that finds targets for it.
#[derive(Debug, Clone)]
pub struct Job {
    /// What is scraped how.
    pub config: Arc<ScrapeConfig>,
    /// Numbers of providers, as [`Found::provider`] has them.
    pub providers: Vec<usize>,
}

/// A group that is new, other than before, or gone.
#[derive(Debug, Clone)]
pub struct Found {
    /// Who found it.
    pub provider: usize,
    /// The group's name there.
    pub source: Arc<str>,
    /// The group; `None` when it is gone.
    pub group: Option<Arc<Group>>,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Targets that are new.
    pub new: usize,
    /// Targets that are gone.
    pub gone: usize,
    /// Targets that have another owner than before.
    pub moved: usize,
    /// Targets that were relabelled to see what they are.
    pub relabelled: usize,
}

/// A target as a collector is told of it: the labels before relabelling.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The group's labels.
    pub group: &'a Labels,
    /// Its own, which count before those of the group.
    pub own: &'a Labels,
    /// Its identity.
    pub identity: u64,
}

/// Targets and who scrapes them.
#[derive(Debug)]
pub struct Allocation {
    pub(crate) settings: Settings,
    pub(crate) strategy: Strategy,
    pub(crate) jobs: Jobs,
    pub(crate) groups: Groups,
    pub(crate) entries: Entries,
    pub(crate) seats: Seats,
    /// Targets that wait for somebody who can take them.
    pub(crate) unassigned: HashSet<Slot, std::hash::BuildHasherDefault<Identity>>,
    /// Who still has a target that another owns.
    pub(crate) staying: HashMap<Slot, Seat, std::hash::BuildHasherDefault<Identity>>,
    pub(crate) settling: VecDeque<Settling>,
    pub(crate) revision: u64,
    /// What changed, for allocators that do as this one does.
    pub(crate) journal: Option<Journal>,
    /// What an allocator says that leads this one.
    pub(crate) guide: Option<Guide>,
    /// The revision of the beginning.
    pub(crate) begun: u64,
    /// Collectors that are gone, and since which revision.
    pub(crate) departed: HashMap<Arc<str>, u64>,
    nodes: HashMap<Arc<str>, u32>,
}

/// What a batch of changes has gathered before it takes effect.
#[derive(Default)]
struct Batch {
    new: Vec<Slot>,
    /// What is no longer found there; a target may be found elsewhere in the same batch.
    left: Vec<(Slot, Origin)>,
    freed: Vec<u32>,
    outcome: Outcome,
}

impl Allocation {
    /// Nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        Allocation {
            strategy: Strategy::default(),
            settings,
            jobs: Jobs::default(),
            groups: Groups::default(),
            entries: Entries::default(),
            seats: Seats::default(),
            unassigned: HashSet::default(),
            staying: HashMap::default(),
            settling: VecDeque::new(),
            revision: 1,
            journal: None,
            guide: None,
            begun: 1,
            departed: HashMap::new(),
            nodes: HashMap::new(),
        }
    }

    /// Targets are divided in another way from now on. What moves is handed over as always.
    pub fn set_settings(&mut self, settings: Settings) -> Outcome {
        self.revision += 1;
        let by_node = |settings: &Settings| settings.strategy == StrategyKind::PerNode;
        let other_facts =
            settings.filter != self.settings.filter || by_node(&settings) != by_node(&self.settings);
        self.settings = settings;
        self.reseat();
        let mut outcome = Outcome::default();
        if other_facts {
            let mut batch = Batch::default();
            let jobs: Vec<u32> = self.jobs.named().map(|(_, job)| job).collect();
            for job in jobs {
                self.replace_job(job, false, &mut batch);
            }
            outcome = self.settle_batch(batch);
        }
        outcome.moved += self.divide_again();
        outcome
    }

    /// How targets are divided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts changes: what a collector was told at a revision holds until a later one changes it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many targets there are.
    pub fn targets(&self) -> usize {
        self.entries.len()
    }

    /// How many have no owner.
    pub fn unassigned(&self) -> usize {
        self.unassigned.len()
    }

    /// How many are still with another than their owner.
    pub fn in_transit(&self) -> usize {
        self.staying.len()
    }

    /// These are the jobs now. Targets of jobs that stay as they are are not touched.
    pub fn set_jobs(&mut self, jobs: &[Job]) -> Outcome {
        self.revision += 1;
        let mut batch = Batch::default();
        let names: HashSet<&str> = jobs.iter().map(|job| job.config.job_name.as_str()).collect();
        let gone = self.jobs.named().filter(|(name, _)| !names.contains(name));
        let gone: Vec<u32> = gone.map(|(_, job)| job).collect();
        let mut changed = Vec::new();
        for job in jobs {
            let name = &job.config.job_name;
            let old = self.jobs.find(name).and_then(|number| self.jobs.get(number));
            let same_rules = old.is_some_and(|old| same_targets(&old.config, &job.config));
            let same = same_rules && old.is_some_and(|old| old.providers == job.providers);
            let number = self.jobs.put(name, job.config.clone(), job.providers.clone());
            if !same {
                changed.push((number, same_rules));
            }
        }
        for (job, same_rules) in changed {
            self.replace_job(job, same_rules, &mut batch);
        }
        for job in &gone {
            let placed: Vec<(usize, Arc<str>)> = self.placed_for(*job, |_| true);
            for (provider, source) in placed {
                self.displace(*job, provider, &source, &mut batch);
            }
        }
        let providers: HashSet<usize> = jobs
            .iter()
            .flat_map(|job| job.providers.iter().copied())
            .collect();
        self.groups
            .providers
            .retain(|provider, _| providers.contains(provider));
        let outcome = self.settle_batch(batch);
        for job in gone {
            self.jobs.remove(job);
        }
        outcome
    }

    fn replace_job(&mut self, job: u32, same_rules: bool, batch: &mut Batch) {
        let providers = self
            .jobs
            .get(job)
            .map(|job| job.providers.clone())
            .unwrap_or_default();
        for (provider, source) in self.placed_for(job, |provider| !providers.contains(&provider)) {
            self.displace(job, provider, &source, batch);
        }
        for provider in providers {
            let known = self.groups.providers.get(&provider).into_iter().flatten();
            let missing = known
                .filter(|(_, group)| !same_rules || !group.placed.iter().any(|(placed, _)| *placed == job));
            let mut again: Vec<_> = missing
                .map(|(source, known)| (source.clone(), known.group.clone()))
                .collect();
            // Of a target that is found in several groups the one that is placed last says where it runs.
            again.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            for (source, group) in again {
                self.place(job, provider, &source, &group, !same_rules, batch);
            }
        }
    }

    /// Where groups are placed for a job.
    fn placed_for(&self, job: u32, wanted: impl Fn(usize) -> bool) -> Vec<(usize, Arc<str>)> {
        let providers = self
            .groups
            .providers
            .iter()
            .filter(|(provider, _)| wanted(**provider));
        let groups = providers.flat_map(|(provider, groups)| groups.iter().map(|group| (*provider, group)));
        let mut placed: Vec<(usize, Arc<str>)> = groups
            .filter(|(_, (_, known))| known.placed.iter().any(|(placed, _)| *placed == job))
            .map(|(provider, (source, _))| (provider, source.clone()))
            .collect();
        // In the same order everywhere: numbers that become free are given again in it.
        placed.sort_unstable();
        placed
    }

    /// Takes what discovery found. What a change adds is there before what it takes away goes, so that a target which
    /// only moved from one group to another keeps its owner.
    pub fn found(&mut self, changes: Vec<Found>) -> Outcome {
        self.revision += 1;
        let mut batch = Batch::default();
        for change in changes {
            let Found {
                provider,
                source,
                group,
            } = change;
            let jobs = self.jobs.of_provider(provider);
            match group {
                Some(group) => {
                    for job in &jobs {
                        self.place(*job, provider, &source, &group, false, &mut batch);
                    }
                    // Without a job nobody keeps it: discovery that ends may still have told something.
                    if let Some(known) = self.known(provider, &source) {
                        known.group = group;
                    }
                }
                None => {
                    let known = self
                        .groups
                        .providers
                        .get(&provider)
                        .and_then(|groups| groups.get(&source));
                    let placed: Vec<u32> = known
                        .iter()
                        .flat_map(|known| known.placed.iter().map(|(job, _)| *job))
                        .collect();
                    for job in placed {
                        self.displace(job, provider, &source, &mut batch);
                    }
                    if let Some(groups) = self.groups.providers.get_mut(&provider) {
                        groups.remove(&source);
                    }
                }
            }
        }
        self.settle_batch(batch)
    }

    fn known(&mut self, provider: usize, source: &Arc<str>) -> Option<&mut KnownGroup> {
        self.groups.providers.get_mut(&provider)?.get_mut(source)
    }

    /// Places a group for a job, in the place of the one that it had from the same source.
    fn place(
        &mut self,
        job: u32,
        provider: usize,
        source: &Arc<str>,
        group: &Arc<Group>,
        again: bool,
        batch: &mut Batch,
    ) {
        let groups = self.groups.providers.entry(provider).or_default();
        let known = groups.entry(source.clone()).or_insert_with(|| KnownGroup {
            group: group.clone(),
            placed: Vec::with_capacity(1),
        });
        let number = known
            .placed
            .iter()
            .find(|(placed, _)| *placed == job)
            .map(|(_, number)| *number);
        let number = number.unwrap_or_else(|| {
            let number = self.groups.reserve();
            if let Some(known) = self.known(provider, source) {
                known.placed.push((job, number));
            }
            number
        });
        let old = self.groups.take(number);
        let content = group.labels.hash64();
        let places = match &old {
            Some(old) if !again => groups::unchanged(&old.group, group),
            _ => vec![NEW; group.targets.len()],
        };
        let slots = self.fates(job, number, old.as_ref(), group, &places, batch);
        if let Some(old) = old {
            leave(&old, number, &places, batch);
        }
        let placement = Placement {
            job,
            group: group.clone(),
            slots,
            content,
        };
        self.groups.put(number, placement);
    }

    /// What becomes of each target of a group.
    fn fates(
        &mut self,
        job: u32,
        number: u32,
        old: Option<&Placement>,
        group: &Arc<Group>,
        places: &[u32],
        batch: &mut Batch,
    ) -> Box<[Slot]> {
        let Some(known) = self.jobs.get(job) else {
            return Box::default();
        };
        let (config, defaults, weight) = (known.config.clone(), known.defaults.clone(), known.usual_weight());
        let mut assembler = Assembler::with_defaults(&config, defaults);
        let hash = group.labels.hash64();
        let mut slots = Vec::with_capacity(group.targets.len());
        for ((index, target), place) in (0u32..).zip(&group.targets).zip(places) {
            let origin = Origin {
                content: content(hash, target),
                placement: number,
                index,
            };
            let before = old.and_then(|old| old.slots.get(*place as usize).copied());
            if let Some(slot) = before {
                if is_target(slot) && *place != index {
                    self.entries.relocate(
                        slot,
                        Origin {
                            index: *place,
                            ..origin
                        },
                        origin,
                    );
                }
                slots.push(slot);
                continue;
            }
            batch.outcome.relabelled += 1;
            let fate = match self.settings.filter {
                true => assembler.assemble(group, target),
                false => Fate::Kept(Target::new(&config.job_name, assembler.discovered(group, target))),
            };
            let slot = match fate {
                Fate::Kept(kept) => {
                    let facts = Facts {
                        identity: kept.identity,
                        job,
                        node: self.node(group, target),
                        partition: partition(group, target),
                        weight,
                    };
                    self.add(facts, origin, batch)
                }
                Fate::Dropped => DROPPED,
                Fate::Wrong(_) => WRONG,
            };
            slots.push(slot);
        }
        slots.into()
    }

    fn add(&mut self, facts: Facts, origin: Origin, batch: &mut Batch) -> Slot {
        let (slot, change) = self.entries.add(facts, origin);
        match change {
            Change::Presence => batch.new.push(slot),
            Change::Content(mark) => self.remark(slot, mark),
            Change::Nothing => {}
        }
        // Where it runs may have changed with its labels.
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.node = facts.node;
        }
        slot
    }

    /// The number of a target's node. Only where it decides anything is it asked for.
    fn node(&mut self, group: &Group, target: &Labels) -> u32 {
        if self.settings.strategy != StrategyKind::PerNode {
            return 0;
        }
        let name = node_of(group, target);
        if name.is_empty() {
            return 0;
        }
        self.node_number(name)
    }

    pub(crate) fn node_number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.nodes.get(name) {
            return *number;
        }
        let number = u32::try_from(self.nodes.len() + 1).unwrap_or(u32::MAX);
        self.nodes.insert(name.into(), number);
        number
    }

    /// A group is gone for a job.
    fn displace(&mut self, job: u32, provider: usize, source: &Arc<str>, batch: &mut Batch) {
        let Some(known) = self.known(provider, source) else {
            return;
        };
        let Some(place) = known.placed.iter().position(|(placed, _)| *placed == job) else {
            return;
        };
        let (_, number) = known.placed.swap_remove(place);
        if let Some(old) = self.groups.take(number) {
            leave(&old, number, &[], batch);
        }
        batch.freed.push(number);
    }

    /// Lets a batch take effect: first who is gone, then who is new, in an order that does not depend on when what was
    /// found.
    fn settle_batch(&mut self, batch: Batch) -> Outcome {
        let Batch {
            mut new,
            left,
            freed,
            mut outcome,
        } = batch;
        let mut gone = Vec::new();
        for (slot, origin) in left {
            match self.entries.release(slot, origin) {
                Change::Presence => gone.push(slot),
                Change::Content(mark) => self.remark(slot, mark),
                Change::Nothing => {}
            }
        }
        let vanished: HashSet<Slot> = gone.iter().copied().collect();
        new.retain(|slot| !vanished.contains(slot));
        for slot in &gone {
            outcome.gone += usize::from(self.forget(*slot));
        }
        freed.into_iter().for_each(|number| self.groups.release(number));
        new.sort_unstable_by_key(|slot| self.entries.get(*slot).map(|entry| entry.identity));
        outcome.new = new.len();
        new.iter().for_each(|slot| self.count_new(*slot));
        for slot in new {
            self.assign(slot);
        }
        if !gone.is_empty() {
            self.entries.shrink();
        }
        outcome
    }

    fn count_new(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        self.strategy.total += entry.weight();
        if let Some(job) = self.jobs.get_mut(entry.job) {
            job.targets += 1;
        }
    }

    /// Forgets a target; whether it was counted before.
    fn forget(&mut self, slot: Slot) -> bool {
        let Some(entry) = self.entries.get(slot).cloned() else {
            return false;
        };
        let counted = entry.owner != NOBODY || self.unassigned.remove(&slot);
        self.vacate(slot);
        if counted {
            self.strategy.total = self.strategy.total.saturating_sub(entry.weight());
        }
        if let Some(job) = self.jobs.get_mut(entry.job).filter(|_| counted) {
            job.targets = job.targets.saturating_sub(1);
            if entry.is_measured() {
                job.known.0 = job.known.0.saturating_sub(1);
                job.known.1 = job.known.1.saturating_sub(entry.weight());
            }
        }
        self.entries.free(slot);
        counted
    }
}

/// Targets of the group before that are not in the one after.
fn leave(old: &Placement, number: u32, places: &[u32], batch: &mut Batch) {
    let mut stays = vec![false; old.slots.len()];
    for place in places {
        if let Some(stays) = stays.get_mut(*place as usize) {
            *stays = true;
        }
    }
    for ((index, slot), stays) in (0u32..).zip(&old.slots).zip(stays) {
        if stays || !is_target(*slot) {
            continue;
        }
        let content = old
            .group
            .targets
            .get(index as usize)
            .map_or(0, |target| old.content_of(target));
        let origin = Origin {
            content,
            placement: number,
            index,
        };
        batch.left.push((*slot, origin));
    }
}

/// Whether two configurations of a job make the same targets of what is found.
fn same_targets(a: &ScrapeConfig, b: &ScrapeConfig) -> bool {
    a.relabel == b.relabel
        && (a.interval, a.timeout) == (b.interval, b.timeout)
        && a.metrics_path == b.metrics_path
        && a.scheme == b.scheme
        && a.params == b.params
}

fn label<'a>(group: &'a Group, target: &'a Labels, name: &str) -> &'a str {
    match target.get(name) {
        "" => group.labels.get(name),
        own => own,
    }
}

/// The node that a target runs on; empty if its labels name none.
pub(crate) fn node_of<'a>(group: &'a Group, target: &'a Labels) -> &'a str {
    let named = NODE_LABELS.iter().map(|name| label(group, target, name));
    let kind = "__meta_kubernetes_endpointslice_address_target_kind";
    if let Some(node) = named.into_iter().find(|node| !node.is_empty()) {
        return node;
    }
    match label(group, target, kind) {
        "Node" => label(
            group,
            target,
            "__meta_kubernetes_endpointslice_address_target_name",
        ),
        _ => "",
    }
}

fn partition(group: &Group, target: &Labels) -> u16 {
    let hash = xxh64(label(group, target, ADDRESS).as_bytes(), 0);
    u16::try_from(hash % PARTITIONS as u64).unwrap_or(0)
}
