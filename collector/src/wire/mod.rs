//! OTLP's protobuf encoding, read in place: a scan that says whether a decoder would take it, and fields to walk over.

pub mod field;
mod scan;
mod schema;
mod sift;
mod split;

pub use scan::{Malformed, scan};
pub(crate) use sift::{
    Item, Verdict, attribute, count_points, last, last_number, put_attribute, put_text, sift, single, text_of,
};
pub(crate) use split::divide;
pub use split::split;
