//! The collector as a whole: document → graph of pipelines → run, reload, drain.

mod backoff;
mod components;
mod figures;
mod graph;
mod island;
mod load;
mod memory;
mod push;
mod queue;
mod reload;
mod run;
mod status;
mod store;
mod telemetry;

pub use components::components;
pub(crate) use queue::Queued;
pub use reload::Service;
pub use run::{CollectorOptions, RunError, run, validate};
pub use status::{Status, StatusError, status};
