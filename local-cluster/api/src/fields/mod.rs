//! Who owns which field: `managedFields`, server-side apply and its conflicts.
//!
//! `set` holds the fields of an object as a tree in the notation of `fieldsV1`; `apply` merges what a manager wants into
//! what there is; `managed` keeps the list in an object's metadata. All pure.

mod apply;
mod difference;
mod managed;
mod set;

pub(crate) use apply::apply;
pub(crate) use managed::{Writer, record_update};
