//! Who gets a target, and how one goes from hand to hand: the new owner has it before the old one lets go.
//!
//! ```text
//! A owns, A has ──move──▶ B owns, A has ──B says that it has it, or B's answer is old enough──▶ B owns, B has
//!                              └── A is gone ──▶ B owns, B has        └── moves to C before: A still has it
//! ```

use std::time::Duration;

use crate::allocation::{Allocation, Held, Outcome};
use crate::lists::{List, Slot};
use crate::seats::{Collector, NOBODY, Seat, Standing};
use crate::settings::StrategyKind;

/// An answer that is taken for a collector's word once it is old enough.
#[derive(Debug, Clone)]
pub(crate) struct Settling {
    until: Duration,
    seat: Seat,
    job: u32,
    revision: u64,
}

/// More answers than this are not remembered; a later one of the same collector says as much.
const MAX_SETTLING: usize = 1 << 20;
/// Of more collectors than this that are gone it is not remembered when they went.
const MAX_DEPARTED: usize = 4096;

impl Allocation {
    /// These are the collectors now. Each target whose collector is gone gets another; by how much the others are
    /// divided anew is the strategy's.
    pub fn set_collectors(&mut self, collectors: &[Collector]) -> Outcome {
        self.revision += 1;
        let seated = self.seats.set(collectors);
        let mut outcome = Outcome::default();
        if seated.changed || !seated.gone.is_empty() {
            self.reseat();
            outcome.moved = self.reassign();
        }
        for seat in seated.gone {
            self.unseat(seat);
        }
        outcome
    }

    /// Tells the strategy who serves, and where.
    pub(crate) fn reseat(&mut self) {
        let nodes: Vec<String> = self
            .seats
            .serving
            .iter()
            .filter_map(|seat| Some(self.seats.get(*seat)?.node.clone()))
            .collect();
        let numbers: Vec<u32> = nodes.iter().map(|node| self.node_number(node)).collect();
        self.strategy.seat(&self.settings, &self.seats, &numbers);
    }

    /// Divides all targets by settings that are other than before; how many move.
    pub(crate) fn divide_again(&mut self) -> usize {
        if !self.settings.hand_over {
            let stayed: Vec<Slot> = self.staying.keys().copied().collect();
            stayed.into_iter().for_each(|slot| self.let_go(slot));
        }
        let mut moved = self.reassign();
        if self.settings.strategy == StrategyKind::LeastWeighted {
            // Who has too many by the rule before would keep them for good.
            let serving = self.seats.serving.clone();
            let targets = |seat: &Seat| self.seats.get(*seat).map_or(0, |member| member.targets);
            let all: u64 = serving.iter().map(targets).sum();
            let most = all.div_ceil(serving.len().max(1) as u64);
            for seat in serving {
                for slot in self.surplus(seat, most) {
                    moved += usize::from(self.assign(slot));
                }
            }
        }
        moved
    }

    /// The targets that a collector has above a number.
    fn surplus(&self, seat: Seat, most: u64) -> Vec<Slot> {
        let Some(member) = self.seats.get(seat).filter(|member| member.targets > most) else {
            return Vec::new();
        };
        let owned = member.lists.iter().flatten().flat_map(|list| &list.owned);
        let mut owned: Vec<(u64, Slot)> = owned
            .filter_map(|slot| Some((self.entries.get(*slot)?.identity, *slot)))
            .collect();
        owned.sort_unstable();
        let kept = usize::try_from(most).unwrap_or(usize::MAX);
        owned.into_iter().skip(kept).map(|(_, slot)| slot).collect()
    }

    /// Looks at every target again after collectors came or went.
    fn reassign(&mut self) -> usize {
        let mut again: Vec<(u64, Slot)> = Vec::new();
        for (slot, entry) in self.entries.iter() {
            let keeps = match self.guided(entry.identity) {
                Some(seat) => entry.owner == seat,
                None => {
                    entry.owner != NOBODY
                        && self.seats.is_serving(entry.owner)
                        && self.strategy.keeps(&self.settings, &self.seats, entry)
                }
            };
            if !keeps {
                again.push((entry.identity, slot));
            }
        }
        again.sort_unstable();
        let mut moved = 0;
        for (_, slot) in again {
            moved += usize::from(self.assign(slot));
        }
        moved
    }

    /// Takes the seat of a collector that is gone. Whatever it still had, its owner has alone now.
    fn unseat(&mut self, seat: Seat) {
        let Some(member) = self.seats.get(seat) else {
            return;
        };
        let lists = member.lists.iter().flatten();
        let stayed: Vec<Slot> = lists
            .clone()
            .flat_map(|list| list.staying.iter().copied())
            .collect();
        let owned: Vec<Slot> = lists.flat_map(|list| list.owned.iter().copied()).collect();
        for slot in stayed {
            self.let_go(slot);
        }
        for slot in owned {
            // Nobody could take it.
            self.vacate(slot);
            self.unassigned.insert(slot);
        }
        self.settling.retain(|settling| settling.seat != seat);
        let name = self.seats.get(seat).map(|member| member.name.clone());
        self.seats.clear(seat);
        if self.departed.len() >= MAX_DEPARTED {
            let oldest = self.departed.iter().min_by_key(|(_, revision)| **revision);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.departed.remove(&oldest);
            }
        }
        self.departed.extend(name.map(|name| (name, self.revision)));
    }

    /// Gives a target to who should have it; whether that is another than before.
    pub(crate) fn assign(&mut self, slot: Slot) -> bool {
        if let Some(moved) = self.obey(slot) {
            return moved;
        }
        let Some(entry) = self.entries.get(slot) else {
            return false;
        };
        let chosen = self.strategy.choose(&self.settings, &self.seats, entry);
        self.give(slot, chosen.unwrap_or(NOBODY))
    }

    /// Gives a target to a collector, or to nobody.
    pub(crate) fn give(&mut self, slot: Slot, to: Seat) -> bool {
        let Some(entry) = self.entries.get(slot) else {
            return false;
        };
        let (from, job) = (entry.owner, entry.job);
        if to == from {
            if to == NOBODY {
                self.unassigned.insert(slot);
            }
            return false;
        }
        let had = match self.staying.get(&slot) {
            Some(holder) => *holder,
            None => from,
        };
        self.vacate(slot);
        if to == NOBODY {
            self.unassigned.insert(slot);
            return true;
        }
        self.unassigned.remove(&slot);
        self.take(slot, to);
        let can_keep = had != to && self.seats.get(had).is_some_and(|member| !member.gone);
        if self.settings.hand_over && had != NOBODY && can_keep {
            self.stay(slot, job, had, to);
        }
        true
    }

    /// The one who has it keeps it for the time being.
    pub(crate) fn stay(&mut self, slot: Slot, job: u32, had: Seat, to: Seat) {
        self.note_place(slot);
        let (revision, mark) = (self.revision, self.mark(slot));
        self.staying.insert(slot, had);
        if let Some(member) = self.seats.get_mut(had) {
            let list = member.list_mut(job);
            list.staying.insert(slot);
            list.sum = list.sum.wrapping_add(mark);
            list.changed = revision;
        }
        if let Some(member) = self.seats.get_mut(to) {
            member.list_mut(job).pending.insert(slot, revision);
        }
    }

    fn mark(&self, slot: Slot) -> u64 {
        self.entries.get(slot).map_or(0, crate::entries::Entry::mark)
    }

    /// Puts a target into a collector's list.
    pub(crate) fn take(&mut self, slot: Slot, seat: Seat) {
        self.note_place(slot);
        let (revision, mark) = (self.revision, self.mark(slot));
        let (Some(entry), Some(member)) = (self.entries.get_mut(slot), self.seats.get_mut(seat)) else {
            return;
        };
        entry.owner = seat;
        member.targets += 1;
        member.load += entry.weight();
        let list = member.list_mut(entry.job);
        entry.place = u32::try_from(list.owned.len()).unwrap_or(u32::MAX);
        list.owned.push(slot);
        list.sum = list.sum.wrapping_add(mark);
        list.changed = revision;
    }

    /// Takes a target from everybody.
    pub(crate) fn vacate(&mut self, slot: Slot) {
        self.note_place(slot);
        self.let_go(slot);
        let (revision, mark) = (self.revision, self.mark(slot));
        let Some(entry) = self.entries.get_mut(slot) else {
            return;
        };
        let seat = std::mem::replace(&mut entry.owner, NOBODY);
        let (job, place, weight) = (entry.job, entry.place as usize, entry.weight());
        let Some(member) = self.seats.get_mut(seat) else {
            return;
        };
        member.targets = member.targets.saturating_sub(1);
        member.load = member.load.saturating_sub(weight);
        let list = member.list_mut(job);
        list.pending.remove(&slot);
        list.sum = list.sum.wrapping_sub(mark);
        list.changed = revision;
        if list.owned.get(place) == Some(&slot) {
            list.owned.swap_remove(place);
        }
        let moved = list.owned.get(place).copied();
        if let Some(moved) = moved.and_then(|moved| self.entries.get_mut(moved)) {
            moved.place = u32::try_from(place).unwrap_or(u32::MAX);
        }
    }

    /// The one who had it before its owner no longer has it.
    fn let_go(&mut self, slot: Slot) {
        let Some(holder) = self.staying.remove(&slot) else {
            return;
        };
        self.note_place(slot);
        let (revision, mark) = (self.revision, self.mark(slot));
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        let (job, owner) = (entry.job, entry.owner);
        if let Some(member) = self.seats.get_mut(holder) {
            let list = member.list_mut(job);
            if list.staying.remove(&slot) {
                list.sum = list.sum.wrapping_sub(mark);
                list.changed = revision;
            }
        }
        if let Some(member) = self.seats.get_mut(owner) {
            member.list_mut(job).pending.remove(&slot);
        }
    }

    /// A target has other labels than before, or is found elsewhere: its mark was another.
    pub(crate) fn remark(&mut self, slot: Slot, before: u64) {
        let Some(entry) = self.entries.get(slot) else {
            return;
        };
        let (after, job, owner, revision) = (entry.mark(), entry.job, entry.owner, self.revision);
        let stays = self.staying.get(&slot).copied().unwrap_or(NOBODY);
        for seat in [owner, stays] {
            if let Some(member) = self.seats.get_mut(seat) {
                let list = member.list_mut(job);
                list.sum = list.sum.wrapping_sub(before).wrapping_add(after);
                list.changed = revision;
            }
        }
    }

    /// A collector says that it has everything that it was told up to a revision: others let go of that.
    pub fn confirmed(&mut self, collector: &str, revision: u64) -> usize {
        let Some(member) = self.seats.find(collector).and_then(|seat| self.seats.get(seat)) else {
            return 0;
        };
        let lists = member.lists.iter().flatten();
        let pending = lists
            .flat_map(|list| &list.pending)
            .filter(|(_, since)| **since <= revision);
        let slots: Vec<Slot> = pending.map(|(slot, _)| *slot).collect();
        self.hand_over(&slots)
    }

    fn hand_over(&mut self, slots: &[Slot]) -> usize {
        if slots.is_empty() {
            return 0;
        }
        self.revision += 1;
        slots.iter().for_each(|slot| self.let_go(*slot));
        slots.len()
    }

    /// A collector was given its list of a job as it was at a revision. One that says nothing more of it is taken to
    /// have it after a while, and nothing that came into the list meanwhile.
    pub fn asked(&mut self, job: &str, collector: &str, revision: u64, now: Duration) {
        let (Some(job), Some(seat)) = (self.jobs.find(job), self.seats.find(collector)) else {
            return;
        };
        let list = self.seats.get(seat).and_then(|member| member.list(job));
        if list.is_some_and(|list| !list.pending.is_empty()) && self.settling.len() < MAX_SETTLING {
            self.settling.push_back(Settling {
                until: now + self.settings.settle,
                seat,
                job,
                revision,
            });
        }
    }

    /// Takes answers that are old enough for the collectors' word; when to look again.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        while let Some(settling) = self
            .settling
            .front()
            .filter(|settling| settling.until <= now)
            .cloned()
        {
            self.settling.pop_front();
            let list = self
                .seats
                .get(settling.seat)
                .and_then(|member| member.list(settling.job));
            let pending = list.into_iter().flat_map(|list| &list.pending);
            let slots: Vec<Slot> = pending
                .filter(|(_, since)| **since <= settling.revision)
                .map(|(slot, _)| *slot)
                .collect();
            self.hand_over(&slots);
        }
        self.settling.front().map(|settling| settling.until)
    }

    /// How many samples a scrape of each target gave, by identity. Nothing moves before [`Allocation::rebalance`].
    pub fn weigh(&mut self, samples: impl IntoIterator<Item = (u64, u32)>) {
        for (identity, samples) in samples {
            let Some(slot) = self.entries.find(identity) else {
                continue;
            };
            let Some(entry) = self.entries.get_mut(slot) else {
                continue;
            };
            let (before, measured) = (entry.weight(), entry.is_measured());
            entry.weigh(samples);
            let (after, job, owner) = (entry.weight(), entry.job, entry.owner);
            self.strategy.total = self.strategy.total.saturating_sub(before) + after;
            if let Some(member) = self.seats.get_mut(owner) {
                member.load = member.load.saturating_sub(before) + after;
            }
            if let Some(job) = self.jobs.get_mut(job) {
                let (count, sum) = job.known;
                let (count, sum) = match measured {
                    true => (count, sum.saturating_sub(before)),
                    false => (count + 1, sum),
                };
                job.known = (count, sum + after);
            }
            if after != before || !measured {
                self.note_place(slot);
            }
        }
    }

    /// Evens out what collectors scrape, where the strategy is `weighted`: the fewest targets move from who has too
    /// much to who comes next for them, no more at once than the budget allows.
    pub fn rebalance(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        if self.settings.strategy != StrategyKind::Weighted {
            return outcome;
        }
        self.revision += 1;
        let waiting: Vec<Slot> = self.unassigned.iter().copied().collect();
        for slot in waiting {
            outcome.moved += usize::from(self.assign(slot));
        }
        let limit = self.strategy.limit(&self.settings, &self.seats);
        let mut budget = (self.strategy.total as f64 * self.settings.budget).ceil() as u64;
        for seat in self.seats.serving.clone() {
            let load = self.seats.get(seat).map_or(0, |member| member.load);
            if load <= limit {
                continue;
            }
            for slot in self.excess(seat, load - limit, &mut budget) {
                let Some(entry) = self.entries.get(slot) else {
                    continue;
                };
                if let Some(to) = self.strategy.next(&self.settings, &self.seats, entry) {
                    outcome.moved += usize::from(self.give(slot, to));
                }
            }
        }
        outcome
    }

    /// The heaviest targets of a collector that together are no more than its excess (one, if all are).
    fn excess(&self, seat: Seat, excess: u64, budget: &mut u64) -> Vec<Slot> {
        let Some(member) = self.seats.get(seat) else {
            return Vec::new();
        };
        let owned = member
            .lists
            .iter()
            .flatten()
            .flat_map(|list| list.owned.iter().copied());
        let mut heaviest: Vec<(u64, u64, Slot)> = owned
            .filter_map(|slot| {
                let entry = self.entries.get(slot)?;
                Some((entry.weight(), entry.identity, slot))
            })
            .collect();
        heaviest.sort_unstable_by(|a, b| b.cmp(a));
        let mut rest = excess;
        let mut chosen = Vec::new();
        for (weight, _, slot) in &heaviest {
            if *weight <= rest && *weight <= *budget {
                rest -= weight;
                *budget -= weight;
                chosen.push(*slot);
            }
        }
        // What is left is less than the lightest target weighs: it goes as well, or the excess stays for good.
        let lightest = heaviest.last().filter(|(weight, _, slot)| {
            rest > 0 && heaviest.len() > 1 && *weight <= *budget && !chosen.contains(slot)
        });
        if let Some((weight, _, slot)) = lightest {
            *budget -= weight;
            chosen.push(*slot);
        }
        chosen
    }

    /// The names of jobs that have targets, with how many.
    pub fn jobs_with_targets(&self) -> impl Iterator<Item = (&str, u64)> {
        let jobs = self.jobs.named();
        let counted = jobs.filter_map(|(name, job)| Some((name, self.jobs.get(job)?.targets)));
        counted.filter(|(_, targets)| *targets > 0)
    }

    /// The names of the jobs.
    pub fn job_names(&self) -> impl Iterator<Item = &str> {
        self.jobs.named().map(|(name, _)| name)
    }

    /// The collectors, by name: name, node, standing, targets owned, their weight.
    pub fn collectors(&self) -> impl Iterator<Item = (&str, &str, Standing, u64, u64)> {
        let named = self.seats.named();
        named.into_iter().map(|(_, member)| {
            let node = member.node.as_str();
            (&*member.name, node, member.standing, member.targets, member.load)
        })
    }

    /// Whether there is such a collector.
    pub fn knows_collector(&self, collector: &str) -> bool {
        self.seats.find(collector).is_some()
    }

    fn list(&self, job: &str, collector: &str) -> Option<&List> {
        let (job, seat) = (self.jobs.find(job)?, self.seats.find(collector)?);
        self.seats.get(seat)?.list(job)
    }

    /// What a collector has of a job.
    pub fn held(&self, job: &str, collector: &str) -> impl Iterator<Item = Held<'_>> {
        let slots = self.list(job, collector).into_iter().flat_map(List::held);
        slots.filter_map(|slot| self.shown(slot))
    }

    /// A target with its labels.
    pub(crate) fn shown(&self, slot: Slot) -> Option<Held<'_>> {
        let entry = self.entries.get(slot)?;
        let placement = self.groups.get(entry.origin.placement)?;
        Some(Held {
            group: &placement.group.labels,
            own: placement.group.targets.get(entry.origin.index as usize)?,
            identity: entry.identity,
        })
    }

    /// How many targets of a job a collector has, and a tag that is the same for the same targets with the same
    /// labels, whichever allocator gives it.
    pub fn tag(&self, job: &str, collector: &str) -> (usize, u64) {
        self.list(job, collector)
            .map_or((0, 0), |list| (list.len(), list.sum))
    }

    /// Jobs whose list for a collector has changed after a revision. For one that is gone since, or was never here, all
    /// of them have: it is to have nothing.
    pub fn changed_since(&self, collector: &str, revision: u64) -> Vec<&str> {
        let Some(member) = self.seats.find(collector).and_then(|seat| self.seats.get(seat)) else {
            let since = self.departed.get(collector).copied().unwrap_or(self.begun);
            let names = self.job_names().filter(|_| since > revision);
            return names.collect();
        };
        let changed = |job: u32| member.list(job).is_some_and(|list| list.changed > revision);
        self.jobs
            .named()
            .filter(|(_, job)| changed(*job))
            .map(|(name, _)| name)
            .collect()
    }

    /// The owner of a target, by identity, and who has it.
    pub fn owner(&self, identity: u64) -> Option<(&str, &str)> {
        let slot = self.entries.find(identity)?;
        let owner = self.seats.get(self.entries.get(slot)?.owner)?;
        let has = self.staying.get(&slot).and_then(|holder| self.seats.get(*holder));
        Some((&owner.name, &has.unwrap_or(owner).name))
    }

    /// Every target with its owner.
    pub fn assignment(&self) -> impl Iterator<Item = (u64, Option<&str>)> {
        self.entries.iter().map(|(_, entry)| {
            let owner = self.seats.get(entry.owner).map(|member| &*member.name);
            (entry.identity, owner)
        })
    }

    /// Whether a collector has nothing to scrape.
    pub fn is_idle(&self, collector: &str) -> bool {
        let member = self.seats.find(collector).and_then(|seat| self.seats.get(seat));
        member.is_none_or(|member| member.lists.iter().flatten().all(|list| list.is_empty()))
    }
}
