//! YAML as a tree that remembers its lines, and its typed decoding.
//!
//! Text → [`parse`] → [`Node`]s → [`decode`] → a type, with a [`Diagnosis`](crate::Diagnosis) for each key that is
//! wrong. Size, depth and the expansion of aliases are bounded, as a document is written by strangers.

mod decode;
mod error;
mod fields;
mod node;
mod parse;
mod parts;
mod scalar;
mod suggest;

pub use decode::{decode, decode_at};
pub use fields::fields;
pub use node::{Entry, Kind, Node, join_key};
pub use parse::{MAX_DEPTH, MAX_NODES, MAX_TEXT, parse};
pub use parts::Parts;
pub use scalar::Scalar;
pub use suggest::closest;
