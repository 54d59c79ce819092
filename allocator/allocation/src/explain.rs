//! Why a target is kept, dropped, or where it is: the way it went, rule by rule.

use karez_scrape_config::labels::{ADDRESS, Builder};
use karez_scrape_config::relabel::Rule;
use karez_scrape_config::{Assembler, Fate, Group, Labels, ScrapeConfig};
use serde::{Deserialize, Serialize};

use crate::allocation::{Allocation, node_of};
use crate::groups::Placement;
use crate::lists::Slot;
use crate::settings::StrategyKind;

/// A discovered target and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The job it was found for.
    pub job: String,
    /// Its labels as discovery gives them, with those that every target has.
    pub discovered: Labels,
    /// What each rule did that did something.
    pub steps: Vec<Step>,
    /// What became of it.
    pub outcome: Where,
}

/// What one rule did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its place among `relabel_configs`, from 0.
    pub rule: usize,
    /// As it is written, in short.
    pub text: String,
    /// What it did.
    pub effect: String,
}

/// What became of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum Where {
    /// A rule dropped it.
    Dropped {
        /// Which one, from 0.
        rule: usize,
    },
    /// It cannot be scraped.
    Wrong {
        /// Why.
        reason: String,
    },
    /// It is scraped, or would be.
    Kept {
        /// What identifies it, in hexadecimal.
        identity: String,
        /// Its labels.
        labels: Labels,
        /// In how many places it is found.
        found: u32,
        /// Samples that a scrape of it gives, if somebody has told.
        samples: Option<u64>,
        /// Who owns it.
        owner: Option<String>,
        /// Who has it while the owner does not yet.
        still_with: Option<String>,
        /// Why that one.
        reason: String,
    },
}

impl Allocation {
    /// Explains the targets that are asked for: by address, by identity, by a label's value or by a part of the
    /// address; `limit` at most.
    pub fn explain(&self, asked: &str, limit: usize) -> Vec<Explanation> {
        let identity = u64::from_str_radix(asked.trim_start_matches("0x"), 16).ok();
        let slot = identity.and_then(|identity| self.entries.find(identity));
        let mut found = Vec::new();
        for exact in [true, false] {
            for placement in self.groups.iter() {
                for (target, is) in placement.group.targets.iter().zip(&placement.slots) {
                    if found.len() >= limit {
                        return found;
                    }
                    let meant = match exact {
                        true => slot == Some(*is) || is_address(&placement.group, target, asked),
                        false => is_like(&placement.group, target, asked),
                    };
                    if meant {
                        found.extend(self.explain_one(placement, target));
                    }
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        found
    }

    fn explain_one(&self, placement: &Placement, target: &Labels) -> Option<Explanation> {
        let config = &self.jobs.get(placement.job)?.config;
        let mut assembler = Assembler::new(config);
        let discovered = assembler.discovered(&placement.group, target);
        let (steps, dropped) = walk(config, &discovered);
        let outcome = match (dropped, assembler.assemble(&placement.group, target)) {
            (Some(rule), _) => Where::Dropped { rule },
            // The same rules on the same labels: a drop was seen on the way.
            (None, Fate::Dropped) => Where::Dropped {
                rule: config.relabel.len(),
            },
            (None, Fate::Wrong(error)) => Where::Wrong {
                reason: error.to_string(),
            },
            (None, Fate::Kept(kept)) => {
                self.kept(kept.identity, kept.labels, node_of(&placement.group, target))
            }
        };
        Some(Explanation {
            job: config.job_name.clone(),
            discovered,
            steps,
            outcome,
        })
    }

    fn kept(&self, identity: u64, labels: Labels, node: &str) -> Where {
        let slot = self.entries.find(identity);
        let entry = slot.and_then(|slot| self.entries.get(slot));
        let name = |seat| self.seats.get(seat).map(|member| member.name.to_string());
        let owner = entry.and_then(|entry| name(entry.owner));
        let still_with = slot.and_then(|slot| name(*self.staying.get(&slot)?));
        Where::Kept {
            identity: format!("{identity:016x}"),
            labels,
            found: entry.map_or(0, |entry| entry.found),
            samples: entry
                .filter(|entry| entry.is_measured())
                .map(|entry| entry.weight()),
            reason: self.reason(slot, owner.as_deref(), still_with.as_deref(), node),
            owner,
            still_with,
        }
    }

    fn reason(
        &self,
        slot: Option<Slot>,
        owner: Option<&str>,
        still_with: Option<&str>,
        node: &str,
    ) -> String {
        let serving = self.seats.serving.len();
        let Some(owner) = owner else {
            return match (serving, self.settings.strategy) {
                (0, _) => "no collector is there".to_owned(),
                (_, StrategyKind::PerNode) if node.is_empty() => {
                    "it names no node, and `allocation_fallback_strategy` is not set".to_owned()
                }
                (_, StrategyKind::PerNode) => format!("no collector runs on its node `{node}`"),
                _ => "every collector is at its cap".to_owned(),
            };
        };
        let entry = slot.and_then(|slot| self.entries.get(slot));
        let mut kind = self.settings.strategy;
        if kind == StrategyKind::PerNode && node.is_empty() {
            kind = self.settings.fallback.unwrap_or(kind);
        }
        let why = match kind {
            StrategyKind::ConsistentHashing => {
                let partition = entry.map_or(0, |entry| entry.partition);
                format!("its address falls into partition {partition}, which `{owner}` has")
            }
            StrategyKind::LeastWeighted => {
                format!("`{owner}` had the fewest targets when it was found or lost its collector")
            }
            StrategyKind::PerNode => format!("`{owner}` runs on its node `{node}`"),
            StrategyKind::Weighted => {
                let limit = self.strategy.limit(&self.settings, &self.seats);
                format!(
                    "`{owner}` came first in its order among those with room (at most {limit} samples each)"
                )
            }
        };
        match still_with {
            Some(other) => format!("{why}; `{other}` scrapes it until `{owner}` says that it has it"),
            None => why,
        }
    }
}

fn is_address(group: &Group, target: &Labels, asked: &str) -> bool {
    let own = target.get(ADDRESS);
    own == asked || own.is_empty() && group.labels.get(ADDRESS) == asked
}

fn is_like(group: &Group, target: &Labels, asked: &str) -> bool {
    let mut labels = target.iter().chain(&group.labels);
    labels.any(|(name, value)| value == asked || name == ADDRESS && value.contains(asked))
}

/// Applies the rules one by one: what each did, and which one dropped.
fn walk(config: &ScrapeConfig, discovered: &Labels) -> (Vec<Step>, Option<usize>) {
    let mut builder = Builder::of(discovered.clone());
    let mut before = discovered.clone();
    let mut steps = Vec::new();
    for (number, rule) in config.relabel.iter().enumerate() {
        let keeps = rule.apply(&mut builder);
        let after = builder.labels();
        let effect = match keeps {
            false => "dropped the target".to_owned(),
            true => difference(&before, &after),
        };
        if !effect.is_empty() {
            let text = written(rule);
            steps.push(Step {
                rule: number,
                text,
                effect,
            });
        }
        if !keeps {
            return (steps, Some(number));
        }
        before = after;
    }
    (steps, None)
}

fn difference(before: &Labels, after: &Labels) -> String {
    let mut changes = Vec::new();
    for (name, value) in after {
        if before.get(name) != value {
            changes.push(format!("{name}={value:?}"));
        }
    }
    for (name, _) in before {
        if after.get(name).is_empty() {
            changes.push(format!("without {name}"));
        }
    }
    changes.join(", ")
}

/// A rule in one line.
fn written(rule: &Rule) -> String {
    let text = rule.text();
    let mut parts = vec![text.action.as_str().to_owned()];
    if !text.source_labels.is_empty() {
        parts.push(format!("[{}]", text.source_labels.join(", ")));
    }
    if text.regex != "(.*)" {
        parts.push(format!("/{}/", text.regex));
    }
    if !text.target_label.is_empty() {
        parts.push(format!("→ {}", text.target_label));
    }
    if text.replacement != "$1" {
        parts.push(format!("= {}", text.replacement));
    }
    parts.join(" ")
}
