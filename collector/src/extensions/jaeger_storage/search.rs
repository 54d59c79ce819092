//! Searches in a [`TraceStore`] as Jaeger's query API asks them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::store::{StoredSpan, StoredTrace, TraceStore};

/// What a trace must have one span of: every condition holds on the same span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this service.
    pub service: Option<String>,
    /// With this name.
    pub operation: Option<String>,
    /// With these tags, on the span, its process or its logs.
    pub tags: Vec<(String, String)>,
    /// Started then or later, in nanoseconds since 1970.
    pub start: u64,
    /// Started then or earlier.
    pub end: u64,
    /// At least so long, in nanoseconds.
    pub min_duration: Option<u64>,
    /// At most so long.
    pub max_duration: Option<u64>,
    /// At most so many traces, the latest.
    pub limit: usize,
}

/// Calls from one service to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Who calls.
    pub parent: String,
    /// Who is called.
    pub child: String,
    /// How often.
    pub calls: u64,
}

/// Finds traces, latest first.
pub fn find(store: &TraceStore, query: &Query) -> Vec<StoredTrace> {
    let candidates = store.candidates(query.service.as_deref(), query.start, query.end);
    let traces = candidates.iter().filter_map(|id| store.trace(id));
    traces
        .filter(|trace| trace.spans.iter().any(|span| matches(span, query)))
        .take(query.limit)
        .collect()
}

fn matches(span: &Arc<StoredSpan>, query: &Query) -> bool {
    let duration = span.duration();
    query
        .service
        .as_ref()
        .is_none_or(|service| service == span.service())
        && query
            .operation
            .as_ref()
            .is_none_or(|operation| **operation == *span.operation)
        && (query.start..=query.end).contains(&span.start)
        && query.min_duration.is_none_or(|least| duration >= least)
        && query.max_duration.is_none_or(|most| duration <= most)
        && (query.tags.is_empty() || has_tags(span, &query.tags))
}

fn has_tags(span: &StoredSpan, wanted: &[(String, String)]) -> bool {
    let span = span.decode();
    let process = span.process.iter().flat_map(|process| &process.tags);
    let logs = span.logs.iter().flat_map(|log| &log.fields);
    let all: Vec<_> = span.tags.iter().chain(process).chain(logs).collect();
    wanted.iter().all(|(key, value)| {
        all.iter()
            .any(|tag| tag.key == *key && tag.value_text() == *value)
    })
}

/// Who calls whom, from traces with a span between two instants (nanoseconds since 1970).
pub fn dependencies(store: &TraceStore, start: u64, end: u64) -> Vec<Dependency> {
    let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
    for id in store.candidates(None, start, end) {
        let Some(trace) = store.trace(&id) else { continue };
        let services: HashMap<[u8; 8], &str> =
            trace.spans.iter().map(|span| (span.id, span.service())).collect();
        for span in &trace.spans {
            if let Some(parent) = services
                .get(&span.parent)
                .filter(|parent| **parent != span.service())
            {
                *calls
                    .entry(((*parent).to_owned(), span.service().to_owned()))
                    .or_default() += 1;
            }
        }
    }
    calls
        .into_iter()
        .map(|((parent, child), calls)| Dependency { parent, child, calls })
        .collect()
}
