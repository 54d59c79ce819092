//! Which collector scrapes which target. Nothing here opens a socket, reads a file or a clock: groups of targets,
//! collectors and figures come in, lists for collectors go out, and `now` is an argument.
//!
//! ```text
//! Found (provider, source, Group) ─▶ relabel fully ─▶ identity: job + final labels ─▶ strategy ─▶ owner
//! Collector (name, node, standing) ───────────────────────────────────────────────────────┘      │
//! samples scraped ─▶ weights ─▶ rebalance (a budget of moves) ─────────────────────────▶ move ◀──┘
//!                                                                                         │
//!        the one who has it keeps it until the new owner says that it has it  ◀───────────┘
//! ```
//!
//! Work follows what changes: a group that comes again is compared with what it was, and only targets that differ are
//! relabelled and assigned. A target costs some 80 bytes beside its group, which discovery holds anyway.

mod allocation;
mod entries;
mod explain;
mod groups;
mod jobs;
mod lists;
mod moves;
pub mod presence;
mod seats;
mod settings;
mod share;
mod strategy;

pub use allocation::{Allocation, Found, Held, Job, Outcome};
pub use explain::{Explanation, Step, Where};
pub use seats::{Collector, Standing};
pub use settings::{Settings, StrategyKind, UnknownStrategy};
pub use share::{Copy, CopyError, Place};
