//! `probabilistic_sampler`: keeps a share of traces, or of log records, so that all collectors that see a trace decide
//! alike.
//!
//! ```text
//! item ─▶ randomness (trace identifier, `rv`, or a hash) ─┐
//!      ─▶ threshold (percentage, or the item's own `th`) ─┴▶ randomness ≥ threshold? ─▶ kept, with its threshold noted
//! ```

mod state;
mod threshold;

#[cfg(test)]
mod tests;

use karez_collector_config::Signal;
use karez_collector_config::probabilistic_sampler::{self as config, AttributeSource, SamplerMode};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Variant;
use prost::Message;

use self::state::{State, Unreadable};
use self::threshold::{Randomness, Threshold};
use super::edit::Attributes;
use super::stateless;
use crate::batch::Batch;
use crate::component::{ComponentContext, Consumer, Processor, Running, StartError};
use crate::wire::{self, Item, Verdict, last};

/// The processor.
pub struct ProbabilisticSampler {
    config: config::ProbabilisticSampler,
}

impl ProbabilisticSampler {
    /// A processor of this configuration.
    pub fn new(config: config::ProbabilisticSampler) -> Self {
        ProbabilisticSampler { config }
    }
}

impl Processor for ProbabilisticSampler {
    fn start(&self, next: Consumer, cx: &ComponentContext) -> Result<(Consumer, Running), StartError> {
        let samplers = [
            Sampler::new(&self.config, false),
            Sampler::new(&self.config, true),
        ];
        let change = move |batch: Batch| {
            let [traces, logs] = &samplers;
            match batch.signal {
                Signal::Traces => wire::sift(batch, |item| traces.span(item)),
                Signal::Logs => wire::sift(batch, |item| logs.record(item)),
                Signal::Metrics => Some(batch),
            }
        };
        Ok((stateless::entrance(change, next, cx), Running::none()))
    }
}

/// How is decided.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Decide {
    Never,
    /// By 14 bits of a hash.
    Hash(Threshold),
    /// One threshold for all.
    Equal(Threshold),
    /// A share of what comes.
    Share(f64),
}

struct Sampler {
    config: config::ProbabilisticSampler,
    decide: Decide,
}

/// What a span's attribute `sampling.priority` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    None,
    Keep,
    Drop,
}

impl Sampler {
    fn new(config: &config::ProbabilisticSampler, logs: bool) -> Self {
        let percentage = config.sampling_percentage.min(100.0);
        let ratio = f64::from(percentage) / 100.0;
        // In 32 bits and cut off, as every other collector computes it.
        let buckets = (percentage * (16384.0 / 100.0)) as u32;
        let decide = match config.mode(logs) {
            _ if ratio <= 0.0 => Decide::Never,
            SamplerMode::HashSeed if buckets == 0 => Decide::Never,
            SamplerMode::HashSeed => Decide::Hash(Threshold::of_buckets(16384 - buckets)),
            SamplerMode::Equalizing => {
                Threshold::of(ratio, config.sampling_precision).map_or(Decide::Never, Decide::Equal)
            }
            SamplerMode::Proportional => Decide::Share(ratio),
        };
        Sampler {
            config: config.clone(),
            decide,
        }
    }

    fn undecidable(&self) -> Threshold {
        match self.config.fail_closed {
            true => Threshold::NEVER,
            false => Threshold::ALWAYS,
        }
    }

    fn threshold(&self, state: &State) -> Threshold {
        match self.decide {
            Decide::Never => Threshold::NEVER,
            Decide::Hash(threshold) | Decide::Equal(threshold) => threshold,
            Decide::Share(ratio) => {
                let before = state.threshold.map_or(1.0, Threshold::probability);
                Threshold::of(before * ratio, self.config.sampling_precision).unwrap_or(Threshold::NEVER)
            }
        }
    }

    fn span(&self, item: Item<'_>) -> Verdict {
        let span = item.item;
        let priority = priority(span);
        if priority == Priority::Drop {
            return Verdict::Drop;
        }
        let id = last(span, 1).unwrap_or_default();
        let trace_state = last(span, 3).map_or(Ok(""), std::str::from_utf8).unwrap_or("");
        let state = State::of_span(trace_state);
        let own = || match self.decide {
            Decide::Hash(_) => Some(Randomness::of_hash(&padded(id), self.config.hash_seed)),
            _ => Randomness::of_trace(id),
        };
        let (randomness, mut state, mut threshold) = self.decide(state, own);
        if priority == Priority::Keep {
            threshold = Threshold::ALWAYS;
        }
        if !threshold.keeps(randomness) {
            return Verdict::Drop;
        }
        match &mut state {
            None => Verdict::Keep,
            Some(state) => {
                note(state, threshold);
                Verdict::Change(state.write_span(span))
            }
        }
    }

    fn record(&self, item: Item<'_>) -> Verdict {
        let mut attributes = Attributes::read(item.item, 6);
        let state = State::of_record(&attributes);
        let id = last(item.item, 9).unwrap_or_default();
        let hash = |bytes: &[u8]| Randomness::of_hash(bytes, self.config.hash_seed);
        let of_attribute = || {
            let value = attributes.get(&self.config.from_attribute)?;
            Some(hash(&bytes_of(&value)))
        };
        let own = || match (self.decide, self.config.attribute_source) {
            (Decide::Hash(_), AttributeSource::TraceId) => Some(hash(&padded(id))),
            (Decide::Hash(_), AttributeSource::Record) => of_attribute(),
            _ => Randomness::of_trace(id).or_else(of_attribute),
        };
        let (randomness, mut state, mut threshold) = self.decide(state, own);
        if let Some(asked) = self.asked(&attributes) {
            threshold = threshold.min(asked);
        }
        if !threshold.keeps(randomness) {
            return Verdict::Drop;
        }
        let Some(state) = &mut state else {
            return Verdict::Keep;
        };
        note(state, threshold);
        state.note(&mut attributes);
        attributes.write(item.item).map_or(Verdict::Keep, Verdict::Change)
    }

    /// The randomness, the state to note the decision in (none if there is no good one), and the threshold.
    fn decide(
        &self,
        state: Result<State, Unreadable>,
        own: impl FnOnce() -> Option<Randomness>,
    ) -> (Randomness, Option<State>, Threshold) {
        let Ok(mut state) = state else {
            return (own().unwrap_or(Randomness::GREATEST), None, self.undecidable());
        };
        let randomness = match self.decide {
            // Who uses consistent sampling is not to hash: what the item says is left alone.
            Decide::Hash(_) if state.randomness.is_some() || state.threshold.is_some() => {
                return (
                    own().unwrap_or(Randomness::GREATEST),
                    Some(state),
                    self.undecidable(),
                );
            }
            Decide::Hash(_) => {
                state.randomness = own();
                state.randomness
            }
            _ => state.randomness.or_else(own),
        };
        let Some(randomness) = randomness else {
            return (Randomness::GREATEST, Some(state), self.undecidable());
        };
        if state
            .threshold
            .is_some_and(|threshold| !threshold.keeps(randomness))
        {
            // By its own threshold it would not be here.
            state.threshold = None;
            return (randomness, Some(state), self.undecidable());
        }
        let threshold = self.threshold(&state);
        (randomness, Some(state), threshold)
    }

    /// The threshold of the percentage that a log record asks for.
    fn asked(&self, attributes: &Attributes<'_>) -> Option<Threshold> {
        if self.config.sampling_priority.is_empty() {
            return None;
        }
        let percentage = match attributes.get(&self.config.sampling_priority)?.value? {
            Variant::DoubleValue(value) => value,
            Variant::IntValue(value) => value as f64,
            _ => return None,
        };
        Threshold::of((percentage / 100.0).min(1.0), self.config.sampling_precision)
    }
}

/// Notes a decision. A threshold below the one that stands there would claim more than came.
fn note(state: &mut State, threshold: Threshold) {
    if state.threshold.is_none_or(|before| before <= threshold) || threshold == Threshold::NEVER {
        state.threshold = Some(threshold);
    }
}

/// An identifier in its full length, as hashes take it.
fn padded(id: &[u8]) -> [u8; 16] {
    id.try_into().unwrap_or_default()
}

fn bytes_of(value: &AnyValue) -> Vec<u8> {
    match &value.value {
        Some(Variant::StringValue(text)) => text.as_bytes().to_vec(),
        Some(Variant::BytesValue(bytes)) => bytes.clone(),
        Some(Variant::IntValue(number)) => number.to_string().into_bytes(),
        Some(Variant::DoubleValue(number)) => number.to_string().into_bytes(),
        Some(Variant::BoolValue(value)) => value.to_string().into_bytes(),
        _ => value.encode_to_vec(),
    }
}

fn priority(span: &[u8]) -> Priority {
    let attributes = Attributes::read(span, 9);
    if !attributes.contains("sampling.priority") {
        return Priority::None;
    }
    let value = attributes.get("sampling.priority").and_then(|value| value.value);
    let number = match value {
        Some(Variant::IntValue(number)) => number as f64,
        Some(Variant::DoubleValue(number)) => number,
        Some(Variant::StringValue(text)) => text.parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    match number {
        0.0 => Priority::Drop,
        number if number > 0.0 => Priority::Keep,
        _ => Priority::None,
    }
}
