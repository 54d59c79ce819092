//! Where a document comes from, YAML that remembers its lines, and what is wrong with it.
//!
//! Data goes one way: a [`Source`] is watched and gives a [`Document`] (text and [`Origin`]); [`yaml::parse`] makes
//! [`yaml::Node`]s of it, each with its line; [`yaml::decode`] makes a typed value of a node and reports *every* key
//! that is unknown or wrong as a [`Diagnosis`], with file, line, dotted key and the mend.

mod diagnosis;
mod source;
mod watch;
pub mod yaml;

pub use diagnosis::{Diagnosis, Origin, Place, Severity, has_errors};
pub use source::{Document, Source, SourceError};
pub use watch::{SecretData, WatchError, watch, watch_secret};
