//! What was measured: minimum, median and maximum of all rounds, and ratios to the peers.

use serde_json::{Value, json};

use crate::options::{Output, PathKind, Who};

/// Which way a number is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// All samples, in the order in which they were first taken.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tables: Vec<Table>,
    skipped: Vec<(PathKind, &'static str, String)>,
}

#[derive(Debug)]
struct Table {
    path: PathKind,
    name: &'static str,
    better: Better,
    rows: Vec<(Who, Vec<f64>)>,
}

impl Report {
    pub(crate) fn add(&mut self, path: PathKind, name: &'static str, better: Better, who: Who, value: f64) {
        let known = self
            .tables
            .iter()
            .position(|table| table.path == path && table.name == name);
        let index = known.unwrap_or_else(|| {
            self.tables.push(Table {
                path,
                name,
                better,
                rows: Vec::new(),
            });
            self.tables.len() - 1
        });
        let rows = &mut self.tables[index].rows;
        match rows.iter_mut().find(|(known, _)| *known == who) {
            Some((_, samples)) => samples.push(value),
            None => rows.push((who, vec![value])),
        }
    }

    pub(crate) fn skip(&mut self, path: PathKind, who: &'static str, why: String) {
        self.skipped.push((path, who, why));
    }

    pub(crate) fn print(&self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&self.json())?),
            Output::Table => {
                self.tables.iter().for_each(Table::print);
                for (path, who, why) in &self.skipped {
                    println!("\nskipped: {who}, {}: {why}", path.name());
                }
            }
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let skipped: Vec<Value> = self
            .skipped
            .iter()
            .map(|(path, who, why)| json!({"path": path.name(), "contender": who, "reason": why}))
            .collect();
        let measured: Vec<Value> = self.tables.iter().flat_map(Table::json).collect();
        json!({"measured": measured, "skipped": skipped})
    }
}

impl Table {
    /// The median of one of the peers, or of the best of all.
    fn peer(&self, only: Option<Who>) -> Option<f64> {
        let medians = self
            .rows
            .iter()
            .filter(|(who, _)| who.is_peer() && only.is_none_or(|only| only == *who))
            .map(|(_, samples)| spread(samples)[1]);
        match self.better {
            Better::Higher => medians.reduce(f64::max),
            Better::Lower => medians.reduce(f64::min),
        }
    }

    fn print(&self) {
        let (nginx, best) = (self.peer(Some(Who::Nginx)), self.peer(None));
        let way = match self.better {
            Better::Higher => "more is better",
            Better::Lower => "less is better",
        };
        println!("\n{} ({}; {way})", self.name, self.path.name());
        println!(
            "  {:<12} {:>10} {:>10} {:>10} {:>8} {:>8}",
            "", "min", "median", "max", "×nginx", "×best"
        );
        for (who, samples) in &self.rows {
            let [min, median, max] = spread(samples);
            let ratio =
                |to: Option<f64>| to.map_or_else(|| "–".to_owned(), |to| format!("{:.2}", median / to));
            println!(
                "  {:<12} {:>10} {:>10} {:>10} {:>8} {:>8}",
                who.name(),
                number(min),
                number(median),
                number(max),
                ratio(nginx),
                ratio(best)
            );
        }
    }

    fn json(&self) -> Vec<Value> {
        let (nginx, best) = (self.peer(Some(Who::Nginx)), self.peer(None));
        let row = |(who, samples): &(Who, Vec<f64>)| {
            let [min, median, max] = spread(samples);
            json!({
                "path": self.path.name(), "metric": self.name, "contender": who.name(),
                "lowerIsBetter": self.better == Better::Lower,
                "min": min, "median": median, "max": max, "samples": samples,
                "ratioToNginx": nginx.map(|to| median / to), "ratioToBestPeer": best.map(|to| median / to),
            })
        };
        self.rows.iter().map(row).collect()
    }
}

/// Minimum, median, maximum.
fn spread(samples: &[f64]) -> [f64; 3] {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    [at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1))]
}

/// Four digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        medium if medium >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
