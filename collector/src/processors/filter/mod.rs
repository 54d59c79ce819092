//! `filter`: drops spans, metrics and log records by name and attribute, on views of the encoding.
//!
//! ```text
//! item ─▶ included? ─▶ excluded? ─▶ stays, or goes (and with the last one its scope and resource)
//! ```

#[cfg(test)]
mod tests;

use karez_collector_config::Signal;
use karez_collector_config::filter as config;
use karez_collector_config::processors::Match;

use super::edit::{Place, Selection};
use super::stateless;
use crate::batch::Batch;
use crate::component::{ComponentContext, Consumer, Processor, Running, StartError};
use crate::wire::{self, Item, Verdict, last_number};

/// The processor.
pub struct Filter {
    config: config::Filter,
}

impl Filter {
    /// A processor of this configuration.
    pub fn new(config: config::Filter) -> Result<Self, StartError> {
        Rules::new(&config)?;
        Ok(Filter { config })
    }
}

impl Processor for Filter {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let rules = Rules::new(&self.config)?;
        Ok((
            stateless::entrance(move |batch| rules.sift(batch), next, cx),
            Running::none(),
        ))
    }
}

/// All rules, compiled.
struct Rules {
    spans: Option<Selection>,
    metrics: Option<MetricRules>,
    logs: Option<[Option<LogRule>; 2]>,
}

/// Resources and names decide apart from each other, as in the other implementation.
struct MetricRules {
    resources: Selection,
    names: Selection,
}

struct LogRule {
    matches: Selection,
    /// The least severity, and whether none matches.
    severity: Option<(u64, bool)>,
}

impl Rules {
    fn new(config: &config::Filter) -> Result<Self, StartError> {
        let spans = &config.spans;
        let spans = match (&spans.include, &spans.exclude) {
            (None, None) => None,
            (include, exclude) => Some(Selection::new(include.as_ref(), exclude.as_ref())?),
        };
        let metrics = &config.metrics;
        let metrics = match (&metrics.include, &metrics.exclude) {
            (None, None) => None,
            (include, exclude) => Some(MetricRules::new(include.as_ref(), exclude.as_ref())?),
        };
        let logs = match (&config.logs.include, &config.logs.exclude) {
            (None, None) => None,
            (include, exclude) => {
                let rule = |rule: &Option<config::LogMatch>| rule.as_ref().map(LogRule::new).transpose();
                Some([rule(include)?, rule(exclude)?])
            }
        };
        Ok(Rules { spans, metrics, logs })
    }

    /// What is left of a batch.
    fn sift(&self, batch: Batch) -> Option<Batch> {
        let verdict = |keep: bool| if keep { Verdict::Keep } else { Verdict::Drop };
        match batch.signal {
            Signal::Traces => match &self.spans {
                Some(rules) => wire::sift(batch, |item| {
                    verdict(rules.takes(&place(Signal::Traces, item, 9)))
                }),
                None => Some(batch),
            },
            Signal::Metrics => match &self.metrics {
                Some(rules) => wire::sift(batch, |item| verdict(rules.keep(item))),
                None => Some(batch),
            },
            Signal::Logs => match &self.logs {
                Some([include, exclude]) => wire::sift(batch, |item| {
                    let included = include.as_ref().is_none_or(|rule| rule.matches(item));
                    verdict(included && !exclude.as_ref().is_some_and(|rule| rule.matches(item)))
                }),
                None => Some(batch),
            },
        }
    }
}

fn place(signal: Signal, item: Item<'_>, number: u32) -> Place<'_> {
    Place {
        signal,
        resource: item.resource,
        scope: item.scope,
        item: item.item,
        holder: item.item,
        number,
    }
}

impl MetricRules {
    fn new(
        include: Option<&config::MetricMatch>,
        exclude: Option<&config::MetricMatch>,
    ) -> Result<Self, StartError> {
        let resources = |rule: &config::MetricMatch| Match {
            match_type: rule.match_type.by_text(),
            resources: rule.resource_attributes.clone(),
            ..Match::default()
        };
        let names = |rule: &config::MetricMatch| Match {
            match_type: rule.match_type.by_text(),
            metric_names: rule.metric_names.clone(),
            ..Match::default()
        };
        // A rule without a list says nothing about it: as an exclusion it must not match all.
        let with_resources = |rule: &&config::MetricMatch| !rule.resource_attributes.is_empty();
        let with_names = |rule: &&config::MetricMatch| !rule.metric_names.is_empty();
        Ok(MetricRules {
            resources: Selection::new(
                include.filter(with_resources).map(resources).as_ref(),
                exclude.filter(with_resources).map(resources).as_ref(),
            )?,
            names: Selection::new(
                include.filter(with_names).map(names).as_ref(),
                exclude.filter(with_names).map(names).as_ref(),
            )?,
        })
    }

    fn keep(&self, item: Item<'_>) -> bool {
        let place = place(Signal::Metrics, item, 12);
        self.resources.takes(&place) && self.names.takes(&place)
    }
}

impl LogRule {
    fn new(rule: &config::LogMatch) -> Result<Self, StartError> {
        let matches = Match {
            match_type: rule.match_type,
            resources: rule.resource_attributes.clone(),
            attributes: rule.record_attributes.clone(),
            log_severity_texts: rule.severity_texts.clone(),
            log_bodies: rule.bodies.clone(),
            ..Match::default()
        };
        let severity = rule.severity_number.as_ref();
        Ok(LogRule {
            matches: Selection::new(Some(&matches), None)?,
            severity: severity.map(|severity| (severity.number().unwrap_or(0), severity.match_undefined)),
        })
    }

    fn matches(&self, item: Item<'_>) -> bool {
        let severe = self
            .severity
            .is_none_or(|(least, undefined)| match last_number(item.item, 2) {
                0 => undefined,
                number => number >= least,
            });
        severe && self.matches.takes(&place(Signal::Logs, item, 6))
    }
}
