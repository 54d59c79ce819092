//! OTLP's protobuf encoding, read in place: a scan that says whether a decoder would take it, and fields to walk over.

pub mod field;
mod scan;
mod schema;
mod split;

pub use scan::{Malformed, scan};
pub use split::split;
