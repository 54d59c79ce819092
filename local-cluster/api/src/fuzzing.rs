//! Entrances for `fuzz/`: what a client may ask for.

use crate::http::path::{Place, Query};
use crate::selector::{Fields, Labels};

/// A path, a query, selectors, and an object that they are compared with.
pub fn request(path: &str, query: &str, selector: &str, object: &serde_json::Value) {
    drop(Place::parse(path));
    let query = Query::parse(query);
    drop((query.number("limit"), query.flag("watch"), query.labels()));
    if let Ok(labels) = Labels::parse(selector) {
        labels.matches(object);
    }
    if let Ok(fields) = Fields::parse(selector) {
        fields.matches(object);
    }
}
