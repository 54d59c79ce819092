//! How a program of Karez starts, reports on itself and stops.
//!
//! ```text
//!  SIGTERM, SIGINT, parent's death ──▶ Shutdown ──▶ every task of the program
//!  every part that is still starting ──▶ ReadyGuard ──▶ Readiness ──▶ /readyz
//!  counters ──▶ Registry ──▶ /metrics        log records ──▶ stderr (text or JSON)
//! ```
//!
//! [`volumes`] is here too, because it is about where a program runs: a child process of the local cluster sees the
//! paths of its Pod, and this maps them to where the files are on the host.

mod admin;
mod logs;
mod parent;
mod readiness;
mod shutdown;
pub mod volumes;

pub use admin::serve_admin;
pub use logs::{LogFormat, init_logs};
pub use parent::PARENT_PIPE;
pub use readiness::{Readiness, ReadyGuard};
pub use shutdown::Shutdown;
