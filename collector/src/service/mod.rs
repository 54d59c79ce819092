//! The collector as a whole: document → graph of pipelines → run, reload, drain.

mod graph;
mod island;
mod load;
mod queue;
mod reload;
mod run;
mod telemetry;

pub use reload::Service;
pub use run::{CollectorOptions, RunError, run, validate};
