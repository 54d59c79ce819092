//! The collector as a whole: document → graph of pipelines → run, reload, drain.

mod backoff;
mod graph;
mod island;
mod load;
mod memory;
mod queue;
mod reload;
mod run;
mod store;
mod telemetry;

pub use reload::Service;
pub use run::{CollectorOptions, RunError, run, validate};
