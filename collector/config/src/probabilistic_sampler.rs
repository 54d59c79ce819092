//! What the `probabilistic_sampler` processor is told.

use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use serde::Deserialize;

/// `probabilistic_sampler`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbabilisticSampler {
    /// How many of a hundred traces (or log records) are kept; from 100 on all, 0 none.
    pub sampling_percentage: f32,
    /// Collectors that share it decide alike; not 0 means the mode `hash_seed` unless another is written.
    pub hash_seed: u32,
    /// How it is decided; unless written, by `hash_seed` and `attribute_source`.
    pub mode: Option<SamplerMode>,
    /// What cannot be decided (no trace identifier, a bad trace state) is dropped; else kept.
    pub fail_closed: bool,
    /// Hexadecimal digits of a threshold, 1 to 14.
    pub sampling_precision: u32,
    /// Logs: where the randomness is.
    pub attribute_source: AttributeSource,
    /// Logs: the attribute with the randomness.
    pub from_attribute: String,
    /// Logs: the attribute with a percentage of its own, which can only add.
    pub sampling_priority: String,
}

/// How a sampler decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerMode {
    /// By a hash of the trace identifier and the seed.
    HashSeed,
    /// So that together with samplers before it the percentage comes out.
    Equalizing,
    /// The percentage of what comes.
    Proportional,
}

/// Where a log record's randomness is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum AttributeSource {
    /// In its trace identifier.
    #[default]
    #[serde(rename = "traceID")]
    TraceId,
    /// In an attribute.
    #[serde(rename = "record")]
    Record,
}

impl Default for ProbabilisticSampler {
    fn default() -> Self {
        ProbabilisticSampler {
            sampling_percentage: 0.0,
            hash_seed: 0,
            mode: None,
            fail_closed: true,
            sampling_precision: 4,
            attribute_source: AttributeSource::TraceId,
            from_attribute: String::new(),
            sampling_priority: String::new(),
        }
    }
}

impl ProbabilisticSampler {
    /// The mode for traces, or for logs.
    pub fn mode(&self, logs: bool) -> SamplerMode {
        let hashes = self.hash_seed != 0 || (logs && self.attribute_source == AttributeSource::Record);
        self.mode.unwrap_or(match hashes {
            true => SamplerMode::HashSeed,
            false => SamplerMode::Proportional,
        })
    }
}

pub(crate) fn read(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<ProbabilisticSampler> {
    let sampler: ProbabilisticSampler = decode_at(node, key, diagnoses)?;
    let mut fault = |part: &str, message: &str, mend: &str| {
        let place = node.key_place(part);
        diagnoses.push(Diagnosis::error(place, join_key(key, part), message, mend));
    };
    let percentage = sampler.sampling_percentage;
    if !percentage.is_finite() || percentage < 0.0 {
        fault(
            "sampling_percentage",
            "is no percentage",
            "write a number from 0 to 100",
        );
    } else if percentage > 0.0 && f64::from(percentage) / 100.0 < 2f64.powi(-56) {
        fault(
            "sampling_percentage",
            "is too small",
            "write 0 to keep nothing, or more",
        );
    }
    if !(1..=14).contains(&sampler.sampling_precision) {
        fault(
            "sampling_precision",
            "is out of range",
            "write a number from 1 to 14",
        );
    }
    if sampler.attribute_source == AttributeSource::Record && sampler.from_attribute.is_empty() {
        let mend = "name the attribute that holds the randomness";
        fault(
            "from_attribute",
            "is missing, as attribute_source is `record`",
            mend,
        );
    }
    Some(sampler)
}
