//! The Kubernetes API over a state folder.
//!
//! A request comes from a `kube::Client` in the same process ([`LocalCluster::client`]) or over TLS on a loopback port
//! ([`LocalCluster::serve`]), goes through `http` (what is asked) and `store` (what it means: pure), and a write through
//! `files` before anybody hears of it. Changes go the other way: from the store's history to each watch.
//!
//! ```text
//! client ── http ── store::{create, update, patch, apply, delete} ─▶ Planned ── files ── Store::commit ─▶ Event ── watches
//! ```
//!
//! Kinds: a fixed list (`kinds`), whatever a CustomResourceDefinition defines (`crd`), and kinds that are only stored
//! ([`LocalCluster::accept_unknown_kind`]). Other paths answer 404, other verbs 405.

mod admission;
mod cluster;
mod crd;
mod defaults;
mod error;
mod fields;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod kinds;
mod patch;
mod schema;
mod selector;
mod serve;
mod store;
mod table;
mod validate;

pub use admission::{Admission, Operation, Read, Refusal};
pub use cluster::{LocalCluster, LocalClusterOptions};
pub use files::OpenError;
pub use serve::{ServeError, Serving};
