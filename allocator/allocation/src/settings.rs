//! How targets are divided.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// By which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyKind {
    /// By a hash of the address, on a ring with bounded load; placed as the OpenTelemetry allocator places.
    #[default]
    ConsistentHashing,
    /// To who has the fewest targets; those that have an owner keep it.
    LeastWeighted,
    /// To the collector on the target's node.
    PerNode,
    /// By samples scraped: rendezvous hashing with bounded load, evened out by few moves.
    Weighted,
}

impl StrategyKind {
    /// All of them.
    pub const ALL: [StrategyKind; 4] = [
        StrategyKind::ConsistentHashing,
        StrategyKind::LeastWeighted,
        StrategyKind::PerNode,
        StrategyKind::Weighted,
    ];

    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            StrategyKind::ConsistentHashing => "consistent-hashing",
            StrategyKind::LeastWeighted => "least-weighted",
            StrategyKind::PerNode => "per-node",
            StrategyKind::Weighted => "weighted",
        }
    }
}

impl fmt::Display for StrategyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A strategy that there is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownStrategy(pub String);

impl fmt::Display for UnknownStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no strategy; write consistent-hashing, least-weighted, per-node or weighted",
            self.0
        )
    }
}

impl std::error::Error for UnknownStrategy {}

impl FromStr for StrategyKind {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        let found = StrategyKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownStrategy(text.to_owned()))
    }
}

/// What the division follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The rule.
    pub strategy: StrategyKind,
    /// The rule for targets without a node, where the rule is `per-node`.
    pub fallback: Option<StrategyKind>,
    /// Whether targets that relabelling drops are left out, as they should be.
    pub filter: bool,
    /// Whether a target stays where it is until its new owner has it.
    pub hand_over: bool,
    /// How long after its question a collector that never says so is taken to have its targets.
    pub settle: Duration,
    /// `weighted`: how far above the mean a collector may be; 0.05 is five percent.
    pub slack: f64,
    /// `weighted`: the part of all samples that may move in one evening out; more moves at the next.
    pub budget: f64,
    /// `weighted`: the most samples a scrape of all its targets gives that a collector takes; 0 is no limit.
    pub cap: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            strategy: StrategyKind::default(),
            fallback: None,
            filter: true,
            hand_over: true,
            settle: Duration::from_secs(6),
            slack: 0.05,
            budget: 0.1,
            cap: 0,
        }
    }
}
