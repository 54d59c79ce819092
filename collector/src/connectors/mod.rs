//! Connectors: each is an exporter of some pipelines and a receiver of others.

pub mod count;
pub mod forward;
pub mod spanmetrics;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::component::{Consumer, Running};

/// A connector that runs: where each signal goes in.
pub struct Connected {
    /// By signal; none for what it does not take.
    pub entrances: [Option<Consumer>; 3],
    /// Its tasks.
    pub running: Running,
}

/// The time as OTLP writes it.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
