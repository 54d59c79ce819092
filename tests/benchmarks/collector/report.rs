//! The result: medians of the rounds, and ratios.

use std::collections::BTreeMap;

use serde_json::json;

use super::measure::Figures;
use super::options::Output;
use super::scenario::{Scenario, Who};

/// All that was measured.
#[derive(Default)]
pub(crate) struct Report {
    figures: BTreeMap<(Scenario, Who), Vec<Figures>>,
}

/// The median, and what lay around it.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Report {
    pub(crate) fn add(&mut self, scenario: Scenario, who: Who, figures: Figures) {
        self.figures.entry((scenario, who)).or_default().push(figures);
    }

    fn spread(&self, of: (Scenario, Who), what: fn(&Figures) -> f64) -> Option<Spread> {
        let mut values: Vec<f64> = self.figures.get(&of)?.iter().map(what).collect();
        values.sort_by(f64::total_cmp);
        Some(Spread {
            least: *values.first()?,
            median: values[values.len() / 2],
            most: *values.last()?,
        })
    }

    pub(crate) fn print(&self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Table => self.table(),
            Output::Json => println!("{}", serde_json::to_string_pretty(&self.json())?),
        }
        Ok(())
    }

    fn table(&self) {
        println!(
            "| scenario | who | CPU s a million items | peak MiB | without files' | items a CPU second | to otelcol | bar | memory \
             | without files' |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for of in self.figures.keys() {
            let (Some(cost), Some(memory)) = (self.spread(*of, cost), self.spread(*of, |f| f.memory)) else {
                continue;
            };
            let peer = (of.0, Who::Otelcol);
            let ratio = |what| Some(self.spread(peer, what)?.median / self.spread(*of, what)?.median);
            let ratio = |what: fn(&Figures) -> f64| match (of.1, ratio(what)) {
                (Who::Karez, Some(ratio)) => format!("{ratio:.1}×"),
                _ => String::new(),
            };
            let part = |ratio: String| {
                if ratio.is_empty() {
                    ratio
                } else {
                    format!("1/{ratio}")
                }
            };
            let own = self
                .spread(*of, |figures| figures.own)
                .map_or(0.0, |own| own.median);
            println!(
                "| {:?} | {:?} | {:.2} ({:.2}–{:.2}) | {:.0} ({:.0}–{:.0}) | {own:.0} | {:.0} | {} | {} | {} | {} |",
                of.0,
                of.1,
                cost.median,
                cost.least,
                cost.most,
                memory.median,
                memory.least,
                memory.most,
                1e6 / cost.median,
                ratio(self::cost),
                if of.1 == Who::Karez {
                    format!("{}×", of.0.bar())
                } else {
                    String::new()
                },
                part(ratio(|figures| figures.memory)),
                part(ratio(|figures| figures.own)),
            );
        }
    }

    fn json(&self) -> serde_json::Value {
        let rounds = self.figures.iter().flat_map(|((scenario, who), all)| {
            all.iter().map(move |figures| {
                json!({
                    "scenario": format!("{scenario:?}"), "who": format!("{who:?}"), "items": figures.items,
                    "cpuSeconds": figures.cpu, "seconds": figures.seconds, "peakMiB": figures.memory,
                    "ownMiB": figures.own, "refused": figures.refused,
                })
            })
        });
        rounds.collect()
    }
}

/// CPU seconds a million items.
fn cost(figures: &Figures) -> f64 {
    figures.cpu / figures.items.max(1) as f64 * 1e6
}
